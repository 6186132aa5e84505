// The rows of x as the packed kernels read them: normalised, widened or rounded to 8 bits, and cut into strips of a few
// rows whose numbers lie side by side, so that a kernel reads one short stream. Columns past K are 0.
#pragma once
#include <algorithm>
#include <cmath>

#include "../../runtime/pool.h"
#include "../common/scratch.h"
#include "../common/vec.h"
#include "packed_linear.h"

namespace ds::DS_ISA {

// R rows in strips of at most `most`, as equal as they can be. A row's bits do not depend on its strip.
struct Strips {
  int64_t rows, count;

  Strips(int64_t rows, int64_t most) : rows(rows), count((rows + most - 1) / most) {}
  int64_t first(int64_t s) const { return s * (rows / count) + std::min(s, rows % count); }
  int64_t height(int64_t s) const { return rows / count + (s < rows % count); }
};

// With H the height of a strip and r its first row, the strip begins at element r * 32 * blocks of floats, integers and
// magnitudes, and at r * blocks of scales and sums.
struct PackedInputs {
  Strips strips;
  int64_t blocks;      // of 32 columns
  float* floats;       // [columns][H]
  int8_t* integers;    // [blocks][8][H][4]: fours of columns
  int8_t* magnitudes;  // their absolute values, where the kernel wants them
  float* scales;       // [blocks][H]
  int32_t* sums;       // [blocks][H], of the block's integers
};

// n = x, or its norm, in f32; the arithmetic of layer_norm and rms_norm.
template <class T>
void normalise(const T* x, int64_t K, const RowNorm& norm, float* n) {
  for_lanes(K, [&](auto load_at, auto store_at) { store_at(n, load_at(x)); });
  if (norm.kind() == NormKind::none) return;
  float mean = 0;
  if (norm.kind() == NormKind::layer) {
    Vec total{};
    for_lanes(K, [&](auto load_at, auto) { total += load_at(n); });
    mean = sum(total) / float(K);
  }
  // The tail's padding must not count.
  Vec squares{};
  int64_t k = 0;
  for (; k + kLanes <= K; k += kLanes) {
    Vec d = load(n + k) - mean;
    squares = fma(d, d, squares);
  }
  float rest = 0;
  for (; k < K; ++k) rest += (n[k] - mean) * (n[k] - mean);
  float rstd = 1.0f / std::sqrt((sum(squares) + rest) / float(K) + float(norm.eps));
  const float *weight = norm.weight.as<float>(), *bias = norm.bias ? norm.bias.as<float>() : nullptr;
  for_lanes(K, [&](auto load_at, auto store_at) {
    Vec v = (load_at(n) - mean) * rstd;
    store_at(n, bias ? fma(v, load_at(weight), load_at(bias)) : v * load_at(weight));
  });
}

// The largest magnitude as its bits: those of a NaN are above those of every number.
inline uint32_t largest_bits(const float* n) {
  UVec most{};
  for (int64_t c = 0; c < kBlockColumns; c += kLanes) {
    UVec size = as_uint(load(n + c)) & 0x7fffffffu;
    most = size > most ? size : most;
  }
  uint32_t lane[kLanes];
  std::memcpy(lane, &most, sizeof most);
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = std::max(lane[i], lane[i + width]);
  return lane[0];
}

struct RoundedBlock {
  int8_t integers[kBlockColumns];
  float scale;
  int32_t sum;
};

// Rounds a block of a row to integers in [-127, 127].
inline RoundedBlock round_block(const float* n) {
  uint32_t bits = largest_bits(n);
  float largest = bits_float(bits);
  if (bits >= 0x7f800000u) return {{}, NAN, 0};
  if (largest < kLeastMagnitude) return {{}, 0, 0};
  typedef int8_t Bytes __attribute__((vector_size(kLanes)));
  const Vec magic = splat(12582912.0f), inverse = splat(127 / largest);  // 1.5 * 2^23: adding it rounds to an integer
  RoundedBlock block;
  IVec total{};
  for (int64_t c = 0; c < kBlockColumns; c += kLanes) {
    IVec rounded = as_int(fma(load(n + c), inverse, magic)) - as_int(magic);
    total += rounded;
    Bytes bytes = __builtin_convertvector(rounded, Bytes);
    std::memcpy(block.integers + c, &bytes, sizeof bytes);
  }
  block.scale = largest / 127;
  block.sum = 0;
  for (int i = 0; i < kLanes; ++i) block.sum += total[i];
  return block;
}

// Row h of a strip of H rows that begins at row `first`.
inline void place_integers(const PackedInputs& in, int64_t first, int64_t H, int64_t h, const float* n) {
  int8_t* integers = in.integers + first * in.blocks * kBlockColumns + 4 * h;
  int8_t* magnitudes = in.magnitudes ? in.magnitudes + first * in.blocks * kBlockColumns + 4 * h : nullptr;
  for (int64_t b = 0; b < in.blocks; ++b) {
    RoundedBlock block = round_block(n + b * kBlockColumns);
    in.scales[first * in.blocks + b * H + h] = block.scale;
    in.sums[first * in.blocks + b * H + h] = block.sum;
    int64_t at = b * kBlockColumns * H;
    for (int64_t c = 0; c < kBlockColumns; c += 4) std::memcpy(integers + at + c * H, block.integers + c, 4);
    if (!magnitudes) continue;
    for (int8_t& q : block.integers) q = int8_t(q < 0 ? -q : q);
    for (int64_t c = 0; c < kBlockColumns; c += 4) std::memcpy(magnitudes + at + c * H, block.integers + c, 4);
  }
}

// Transposes 4 rows of 4 numbers.
inline void turn_four(const float* from, int64_t stride, float* to, int64_t to_stride) {
  typedef float Four __attribute__((vector_size(16)));
  Four row[4], pair[4];
  for (int i = 0; i < 4; ++i) std::memcpy(row + i, from + i * stride, 16);
  for (int i = 0; i < 2; ++i) {
    pair[i] = __builtin_shufflevector(row[2 * i], row[2 * i + 1], 0, 4, 1, 5);
    pair[i + 2] = __builtin_shufflevector(row[2 * i], row[2 * i + 1], 2, 6, 3, 7);
  }
  for (int i = 0; i < 2; ++i) {
    row[2 * i] = __builtin_shufflevector(pair[2 * i], pair[2 * i + 1], 0, 1, 4, 5);
    row[2 * i + 1] = __builtin_shufflevector(pair[2 * i], pair[2 * i + 1], 2, 3, 6, 7);
  }
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * to_stride, row + i, 16);
}

// Writes H rows of `width` numbers side by side, by fours of rows, of which the last may overlap.
inline void place_floats(const float* rows, int64_t H, int64_t width, float* strip) {
  for (int64_t k = 0; k < width; k += 4, strip += 4 * H) {
    if (H < 4)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t c = 0; c < 4; ++c) strip[c * H + h] = rows[h * width + k + c];
    else
      for (int64_t h = 0; h < H; h += 4) {
        int64_t row = std::min(h, H - 4);
        turn_four(rows + row * width + k, width, strip + row, H);
      }
  }
}

inline thread_local Scratch inputs_scratch, rows_scratch;

// What `x` becomes for a weight of a format, in strips of at most `most` rows. In memory of the calling thread, until
// its next call. A few rows are prepared by it alone: waking others would take longer.
inline PackedInputs prepare_inputs(const Tensor& x, const RowNorm& norm, PackedFormat format, int64_t most,
                                   bool with_magnitudes) {
  constexpr int64_t kAlone = 8192;
  int64_t R = x.rows(), K = x.dim(-1), blocks = (K + kBlockColumns - 1) / kBlockColumns, width = blocks * kBlockColumns;
  PackedInputs in{Strips(R, most), blocks, nullptr, nullptr, nullptr, nullptr, nullptr};
  if (is_quantised(format)) {
    in.scales = inputs_scratch.take<float>(size_t(R * blocks * 2 + R * width / 2));
    in.sums = reinterpret_cast<int32_t*>(in.scales + R * blocks);
    in.integers = reinterpret_cast<int8_t*>(in.sums + R * blocks);
    if (with_magnitudes) in.magnitudes = in.integers + R * width;
  } else {
    in.floats = inputs_scratch.take<float>(size_t(R * width));
  }
  auto prepare_strip = [&](int64_t s) {
    int64_t first = in.strips.first(s), H = in.strips.height(s);
    float* strip = in.floats + first * width;
    float* rows = in.floats && H == 1 ? strip : rows_scratch.take<float>(size_t(H * width));
    for (int64_t h = 0; h < H; ++h) {
      float* n = rows + h * width;
      std::fill(n + K, n + width, 0.0f);
      dispatch_float(x.dtype, [&]<class T>() { normalise(x.as<T>() + (first + h) * K, K, norm, n); });
      if (!in.floats) place_integers(in, first, H, h, n);
    }
    if (in.floats && H > 1) place_floats(rows, H, width, strip);
  };
  if (R * K <= kAlone)
    for (int64_t s = 0; s < in.strips.count; ++s) prepare_strip(s);
  else
    parallel_for(in.strips.count, [&](int64_t s) { prepare_strip(s); });
  return in;
}

}  // namespace ds::DS_ISA
