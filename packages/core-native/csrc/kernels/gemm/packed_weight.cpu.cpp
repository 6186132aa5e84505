#include "packed_weight.h"

#include <algorithm>
#include <cmath>

#include "../../runtime/pool.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kRowsPerChunk = kGroupRows;  // what shares cache lines is written by one thread

using Columns = float[kBlockColumns];

// The element of largest magnitude, the first of equals; NaN where one is not finite.
float extreme(const Columns& w) {
  uint32_t largest = 0;
  for (float x : w) largest = std::max(largest, float_bits(x) & 0x7fffffffu);
  if (largest >= 0x7f800000u) return NAN;
  for (float x : w)
    if ((float_bits(x) & 0x7fffffffu) == largest) return x;
  return 0;
}

// Integers of a block, kept in [lowest, highest]; all 0 where the scale is 0 or NaN.
void quantise(const Columns& w, float scale, float lowest, float highest, int32_t (&q)[kBlockColumns]) {
  std::fill_n(q, kBlockColumns, 0);
  if (!(scale < 0 || scale > 0)) return;
  for (int64_t c = 0; c < kBlockColumns; ++c)
    q[c] = int32_t(std::nearbyint(std::min(std::max(w[c] / scale, lowest), highest)));
}

template <PackedFormat kFormat>
void put_block(const Columns& w, uint8_t* block, int64_t lane) {
  uint8_t* to = block + packed_offset(kFormat, 0, lane);
  if constexpr (!is_quantised(kFormat)) {
    if constexpr (kFormat == PackedFormat::f32) {
      for (int64_t c = 0; c < kBlockColumns; ++c) std::memcpy(to + 64 * c, w + c, 4);
    } else {
      std::conditional_t<kFormat == PackedFormat::bf16, bf16, f16> narrow[kBlockColumns];
      for (int64_t c = 0; c < kBlockColumns; c += kLanes) store(narrow + c, load(w + c));
      for (int64_t c = 0; c < kBlockColumns; c += 2) std::memcpy(to + 32 * c, narrow + c, 4);
    }
  } else {
    float largest = extreme(w);
    f16 scale = to_f16(kFormat == PackedFormat::q8 ? std::abs(largest) / 127 : largest / -8);
    std::memcpy(block + 2 * lane, &scale, 2);
    int32_t q[kBlockColumns];
    if constexpr (kFormat == PackedFormat::q8) {
      quantise(w, to_float(scale), -127, 127, q);
      for (int64_t c = 0; c < kBlockColumns; ++c) to[c / 4 * 64 + c % 4] = uint8_t(q[c]);
    } else {
      quantise(w, to_float(scale), -8, 7, q);
      for (int64_t c = 0; c < kBlockColumns / 2; ++c)
        to[c / 4 * 64 + c % 4] = uint8_t((q[c] + 8) | (q[c + 16] + 8) << 4);
    }
  }
}

template <class T, PackedFormat kFormat>
void pack_rows(const PackWeight& op, int64_t begin, int64_t end) {
  const PackedWeight& weight = op.weight;
  for (int64_t b = 0; b < weight.blocks(); ++b) {
    int64_t k = b * kBlockColumns, filled = std::min(kBlockColumns, weight.columns - k);
    for (int64_t r = begin; r < end; ++r) {
      Columns w = {};
      const T* from = op.source.as<T>() + r * weight.columns + k;
      for_lanes(filled, [&](auto load_at, auto store_at) { store_at(w, load_at(from)); });
      int64_t row = op.first + r;
      put_block<kFormat>(w, weight.group(weight.group_of(row)) + b * packed_block_bytes(kFormat), weight.lane_of(row));
    }
  }
}

}  // namespace

void pack_weight(const PackWeight& op) {
  dispatch_float(op.source.dtype, [&]<class T>() {
    dispatch_format(op.weight.format(), [&]<PackedFormat kFormat>() {
      parallel_ranges(op.source.dim(0), kRowsPerChunk,
                      [&](int64_t begin, int64_t end) { pack_rows<T, kFormat>(op, begin, end); });
    });
  });
}

void packed_rows(const PackedRows& op) {
  const PackedWeight& weight = op.weight;
  check_ids(op.name, op.ids, weight.rows);
  parallel_ranges(op.ids.numel(), std::max<int64_t>(1, 8192 / weight.columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t row = op.ids.as<int32_t>()[r], lane = weight.lane_of(row);
      const uint8_t* group = weight.group(weight.group_of(row));
      float* y = op.y.as<float>() + r * weight.columns;
      dispatch_format(weight.format(), [&]<PackedFormat kFormat>() {
        for (int64_t k = 0; k < weight.columns; ++k)
          y[k] =
              packed_number(kFormat, group + k / kBlockColumns * packed_block_bytes(kFormat), k % kBlockColumns, lane);
      });
    }
  });
}

}  // namespace ds::DS_ISA
