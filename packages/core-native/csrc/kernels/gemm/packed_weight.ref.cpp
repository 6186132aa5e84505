#include <algorithm>
#include <cmath>

#include "../common/ref.h"
#include "packed_weight.h"

namespace ds {
namespace {

// What the integers of a block are multiplied with.
f16 scale_of(PackedFormat format, const float (&w)[kBlockColumns]) {
  float largest = 0;
  for (float x : w) {
    if (!std::isfinite(x)) return to_f16(NAN);
    if (std::abs(x) > std::abs(largest)) largest = x;
  }
  return to_f16(format == PackedFormat::q8 ? std::abs(largest) / 127 : largest / -8);
}

void put_block(PackedFormat format, const float (&w)[kBlockColumns], uint8_t* block, int64_t lane) {
  f16 scale16 = is_quantised(format) ? scale_of(format, w) : f16{};
  if (is_quantised(format)) std::memcpy(block + 2 * lane, &scale16, 2);
  float scale = to_float(scale16);
  for (int64_t c = 0; c < kBlockColumns; ++c) {
    uint8_t* p = block + packed_offset(format, c, lane);
    auto write = [p](auto value) { std::memcpy(p, &value, sizeof value); };
    float q = scale == 0 || std::isnan(scale) ? 0 : std::nearbyint(w[c] / scale);
    if (format == PackedFormat::f32) write(w[c]);
    if (format == PackedFormat::bf16) write(to_bf16(w[c]));
    if (format == PackedFormat::f16) write(to_f16(w[c]));
    if (format == PackedFormat::q8) write(int8_t(std::clamp(q, -127.0f, 127.0f)));
    if (format == PackedFormat::q4) {
      int nibble = int(std::clamp(q, -8.0f, 7.0f)) + 8;
      *p = uint8_t(c < 16 ? (*p & 0xf0) | nibble : (*p & 0x0f) | nibble << 4);
    }
  }
}

}  // namespace

void PackWeight::ref() const {
  for (int64_t r = 0; r < source.dim(0); ++r)
    for (int64_t b = 0; b < weight.blocks(); ++b) {
      float w[kBlockColumns] = {};
      for (int64_t c = 0; c < kBlockColumns && b * kBlockColumns + c < weight.columns; ++c)
        w[c] = float(get(source, r * weight.columns + b * kBlockColumns + c));
      uint8_t* block = weight.group(weight.group_of(first + r)) + b * packed_block_bytes(weight.format());
      put_block(weight.format(), w, block, weight.lane_of(first + r));
    }
}

void PackedRows::ref() const {
  check_ids(name, ids, weight.rows);
  for (int64_t r = 0; r < ids.numel(); ++r) {
    int64_t row = ids.as<int32_t>()[r];
    for (int64_t k = 0; k < weight.columns; ++k) {
      const uint8_t* block =
          weight.group(weight.group_of(row)) + k / kBlockColumns * packed_block_bytes(weight.format());
      put(y, r * weight.columns + k, packed_number(weight.format(), block, k % kBlockColumns, weight.lane_of(row)));
    }
  }
}

}  // namespace ds
