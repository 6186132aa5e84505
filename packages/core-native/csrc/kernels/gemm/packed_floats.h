// Products of strips of f32 rows with groups of an f32, bf16 or f16 weight: sums [H][16] of a group live in registers,
// and the weight is widened on its way in.
#pragma once
#include "packed_kernels.h"

namespace ds::DS_ISA {

constexpr int kGroupVectors = int(kGroupRows) / kLanes;

// Rows whose sums of a group fit into registers. The f32 kernel takes two groups at once where a group is one vector,
// for fewer loads a multiplication.
#if defined(__AVX512F__)
constexpr int kFloatRows = 12, kFloatStreams = 2;
#elif defined(__AVX2__)
constexpr int kFloatRows = 6, kFloatStreams = 1;
#else
constexpr int kFloatRows = 4, kFloatStreams = 1;
#endif

// kColumns columns of a group are one cache line; column c of vector v widened to f32.
template <PackedFormat kFormat>
struct WeightLine;

template <>
struct WeightLine<PackedFormat::f32> {
  static constexpr int kColumns = 1;
  static Vec column(const uint8_t* line, int, int v) { return load(reinterpret_cast<const float*>(line) + v * kLanes); }
};

inline UVec load_pairs(const uint8_t* line, int v) {
  UVec pairs;
  std::memcpy(&pairs, line + v * kLanes * 4, sizeof pairs);
  return pairs;
}

template <>
struct WeightLine<PackedFormat::bf16> {
  static constexpr int kColumns = 2;
  static Vec column(const uint8_t* line, int c, int v) {
    UVec pairs = load_pairs(line, v);
    return as_float(c == 0 ? pairs << 16 : pairs & 0xffff0000u);
  }
};

template <>
struct WeightLine<PackedFormat::f16> {
  static constexpr int kColumns = 2;
  static Vec column(const uint8_t* line, int c, int v) {
#if defined(__AVX512F__)
    __m512i pairs = __m512i(load_pairs(line, v));
    return Vec(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(c == 0 ? pairs : _mm512_srli_epi32(pairs, 16))));
#elif defined(__F16C__)
    const __m256i apart = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                           0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i halves = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(__m256i(load_pairs(line, v)), apart), 0xd8);
    return Vec(_mm256_cvtph_ps(c == 0 ? _mm256_castsi256_si128(halves) : _mm256_extracti128_si256(halves, 1)));
#else
    UVec pairs = load_pairs(line, v);
    Vec numbers;
    for (int i = 0; i < kLanes; ++i) numbers[i] = to_float(f16{uint16_t(c == 0 ? pairs[i] : pairs[i] >> 16)});
    return numbers;
#endif
  }
};

template <PackedFormat kFormat>
struct FloatKernel {
  static constexpr int kRows = kFloatRows;
  static constexpr bool kMagnitudes = false;
  static constexpr int streams(int H) { return kFormat == PackedFormat::f32 && H > 1 ? kFloatStreams : 1; }

  template <int H, int S>
  static void run(const PackedInputs& in, int64_t first_row, Depth depth, const uint8_t* groups, int64_t stride,
                  float* sums) {
    using Line = WeightLine<kFormat>;
    constexpr int kLines = int(kBlockColumns) / Line::kColumns;
    const float* x = in.floats + (first_row * in.blocks + depth.begin * H) * kBlockColumns;
    const uint8_t* w = groups;
    Vec total[S][H][kGroupVectors];
    each_sum<S, H, kGroupVectors>([&](int s, int h, int v) {
      total[s][h][v] = depth.begin ? load(sums + (s * H + h) * kGroupRows + v * kLanes) : Vec{};
    });
    for (int64_t line = depth.blocks * kLines; line > 0; --line, w += 64, x += Line::kColumns * H) {
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) __builtin_prefetch(w + s * stride + kAhead);
#pragma GCC unroll 2
      for (int c = 0; c < Line::kColumns; ++c) {
        Vec column[S][kGroupVectors];
        each_sum<S, 1, kGroupVectors>([&](int s, int, int v) { column[s][v] = Line::column(w + s * stride, c, v); });
#pragma GCC unroll 12
        for (int h = 0; h < H; ++h) {
          Vec number = splat(x[c * H + h]);
          each_sum<S, 1, kGroupVectors>(
              [&](int s, int, int v) { total[s][h][v] = fma(number, column[s][v], total[s][h][v]); });
        }
      }
    }
    each_sum<S, H, kGroupVectors>(
        [&](int s, int h, int v) { store(sums + (s * H + h) * kGroupRows + v * kLanes, total[s][h][v]); });
  }
};

// Copies a depth of a group of a 16-bit weight as that of an f32 one, which has the same products.
template <PackedFormat kFormat>
void widen_group(const uint8_t* from, int64_t blocks, float* to) {
  using Line = WeightLine<kFormat>;
  for (int64_t line = blocks * kBlockColumns / Line::kColumns; line > 0; --line, from += 64)
    for (int c = 0; c < Line::kColumns; ++c)
      for (int v = 0; v < kGroupVectors; ++v, to += kLanes) store(to, Line::column(from, c, v));
}

}  // namespace ds::DS_ISA
