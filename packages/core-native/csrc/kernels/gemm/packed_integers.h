// Products of strips of rows in 8 bits with groups of a q8 or q4 weight. The sum of a block is an integer, exact on
// every machine; blocks are added up in f32, in order.
//
// Pairs (AVX2): vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits. q8 gives it the magnitude of
// x and w with the sign of x: 2 * 127 * 127 fits. q4's 0..15 are unsigned as they are, and eight sums of 2 * 15 * 127
// fit, so a block is summed in 16 bits; the 8 that is too much is taken back by the sum of x. Fours (AVX-512 VNNI):
// vpdpbusd adds fours in 32 bits; q8 gives it w + 128.
#pragma once
#include "packed_kernels.h"

namespace ds::DS_ISA {

constexpr int kFours = int(kBlockColumns) / 4;

template <PackedFormat kFormat>
inline void prefetch_block(const uint8_t* block) {
  constexpr int kBytes = int(packed_block_bytes(kFormat));
#pragma GCC unroll 9
  for (int at = 0; at < kBytes; at += 64) __builtin_prefetch(block + kAhead + at);
}

// Where a kernel stands in the integers of its strip.
template <int H>
struct IntegerStrip {
  const int8_t *x, *magnitude;
  const float* scale;
  const int32_t* sum;

  IntegerStrip(const PackedInputs& in, int64_t first_row, int64_t block)
      : x(in.integers + (first_row * in.blocks + block * H) * kBlockColumns),
        magnitude(in.magnitudes + (first_row * in.blocks + block * H) * kBlockColumns),
        scale(in.scales + first_row * in.blocks + block * H),
        sum(in.sums + first_row * in.blocks + block * H) {}
  void next() {
    x += H * kBlockColumns, magnitude += H * kBlockColumns;
    scale += H, sum += H;
  }
};

#if defined(__AVX2__)

typedef float Eight __attribute__((vector_size(32)));

inline __m256i load_bytes(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m256i splat_four(const int8_t* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}

// The integer sums of a block, [H][2] vectors of 8 rows.
template <int H>
inline void sum_pairs_q8(const uint8_t* w, const IntegerStrip<H>& strip, __m256i (&sums)[H][2]) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (auto& row : sums) row[0] = row[1] = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (int f = 0; f < kFours; ++f) {
    __m256i w0 = load_bytes(w + 64 * f), w1 = load_bytes(w + 64 * f + 32);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      __m256i x = splat_four(strip.x + 4 * (f * H + h)), size = splat_four(strip.magnitude + 4 * (f * H + h));
      __m256i p0 = _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(w0, x)), ones);
      __m256i p1 = _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(w1, x)), ones);
      sums[h][0] = _mm256_add_epi32(sums[h][0], p0);
      sums[h][1] = _mm256_add_epi32(sums[h][1], p1);
    }
  }
}

template <int H>
inline void sum_pairs_q4(const uint8_t* w, const IntegerStrip<H>& strip, __m256i (&sums)[H][2]) {
  const __m256i ones = _mm256_set1_epi16(1), nibble = _mm256_set1_epi8(15);
  for (auto& row : sums) row[0] = row[1] = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int f = 0; f < kFours / 2; ++f) {
    __m256i w0 = load_bytes(w + 64 * f), w1 = load_bytes(w + 64 * f + 32);
    __m256i low0 = _mm256_and_si256(w0, nibble), high0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), nibble);
    __m256i low1 = _mm256_and_si256(w1, nibble), high1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), nibble);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      __m256i x0 = splat_four(strip.x + 4 * (f * H + h)), x1 = splat_four(strip.x + 4 * ((f + kFours / 2) * H + h));
      __m256i p0 = _mm256_add_epi16(_mm256_maddubs_epi16(low0, x0), _mm256_maddubs_epi16(high0, x1));
      __m256i p1 = _mm256_add_epi16(_mm256_maddubs_epi16(low1, x0), _mm256_maddubs_epi16(high1, x1));
      sums[h][0] = _mm256_add_epi16(sums[h][0], p0);
      sums[h][1] = _mm256_add_epi16(sums[h][1], p1);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v)
      sums[h][v] = _mm256_sub_epi32(_mm256_madd_epi16(sums[h][v], ones), _mm256_set1_epi32(8 * strip.sum[h]));
}

template <PackedFormat kFormat>
struct PairsKernel {
  static constexpr int kRows = 4;
  static constexpr bool kMagnitudes = kFormat == PackedFormat::q8;
  static constexpr int streams(int) { return 1; }

  template <int H, int S>
  static void run(const PackedInputs& in, int64_t first_row, Depth depth, const uint8_t* groups, int64_t stride,
                  float* sums) {
    constexpr int kBytes = int(packed_block_bytes(kFormat));
    const uint8_t* w = groups;
    IntegerStrip<H> strip(in, first_row, depth.begin);
    __m256 total[S][H][2];
    each_sum<S, H, 2>([&](int s, int h, int v) {
      total[s][h][v] = depth.begin ? _mm256_loadu_ps(sums + (s * H + h) * kGroupRows + 8 * v) : _mm256_setzero_ps();
    });
    for (int64_t block = 0; block < depth.blocks; ++block, w += kBytes, strip.next())
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) {
        const uint8_t* from = w + s * stride;
        prefetch_block<kFormat>(from);
        __m256i integers[H][2];
        if constexpr (kFormat == PackedFormat::q8)
          sum_pairs_q8<H>(from + kScaleBytes, strip, integers);
        else
          sum_pairs_q4<H>(from + kScaleBytes, strip, integers);
        Eight scale[2];
        for (int v = 0; v < 2; ++v)
          scale[v] = Eight(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 16 * v))));
#pragma GCC unroll 4
        for (int h = 0; h < H; ++h)
#pragma GCC unroll 2
          for (int v = 0; v < 2; ++v)
            total[s][h][v] =
                _mm256_fmadd_ps(_mm256_cvtepi32_ps(integers[h][v]), __m256(scale[v] * strip.scale[h]), total[s][h][v]);
      }
    each_sum<S, H, 2>(
        [&](int s, int h, int v) { _mm256_storeu_ps(sums + (s * H + h) * kGroupRows + 8 * v, total[s][h][v]); });
  }
};

#endif
#if defined(__AVX512F__)

// sums += fours of u (unsigned) times the four at x (signed), the same for all rows. The instruction belongs to a later
// extension than this file is compiled for: has_fours() says whether it may run.
inline void add_fours(__m512i& sums, __m512i u, const int8_t* x) {
  struct __attribute__((may_alias, packed)) Four {
    int32_t bits;
  };
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(u), "m"(*reinterpret_cast<const Four*>(x)));
}

inline bool has_fours() {
  static const bool has = __builtin_cpu_supports("avx512vnni");
  return has;
}

template <PackedFormat kFormat>
struct FoursKernel {
  static constexpr int kRows = 12;
  static constexpr bool kMagnitudes = false;
  static constexpr int streams(int) { return 1; }

  template <int H, int S>
  static void run(const PackedInputs& in, int64_t first_row, Depth depth, const uint8_t* groups, int64_t stride,
                  float* sums) {
    constexpr int kBytes = int(packed_block_bytes(kFormat)), kOffset = kFormat == PackedFormat::q8 ? 128 : 8;
    const __m512i sign = _mm512_set1_epi8(char(0x80)), nibble = _mm512_set1_epi8(15);
    const uint8_t* w = groups;
    IntegerStrip<H> strip(in, first_row, depth.begin);
    Vec total[S][H];
    each_sum<S, H, 1>(
        [&](int s, int h, int) { total[s][h] = depth.begin ? load(sums + (s * H + h) * kGroupRows) : Vec{}; });
    for (int64_t block = 0; block < depth.blocks; ++block, w += kBytes, strip.next())
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) {
        const uint8_t* from = w + s * stride;
        prefetch_block<kFormat>(from);
        __m512i integers[H];
#pragma GCC unroll 12
        for (int h = 0; h < H; ++h) integers[h] = _mm512_set1_epi32(-kOffset * strip.sum[h]);
        if constexpr (kFormat == PackedFormat::q8) {
#pragma GCC unroll 8
          for (int f = 0; f < kFours; ++f) {
            __m512i u = _mm512_xor_si512(_mm512_loadu_si512(from + kScaleBytes + 64 * f), sign);
#pragma GCC unroll 12
            for (int h = 0; h < H; ++h) add_fours(integers[h], u, strip.x + 4 * (f * H + h));
          }
        } else {
#pragma GCC unroll 4
          for (int f = 0; f < kFours / 2; ++f) {
            __m512i both = _mm512_loadu_si512(from + kScaleBytes + 64 * f);
            __m512i low = _mm512_and_si512(both, nibble);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
#pragma GCC unroll 12
            for (int h = 0; h < H; ++h) {
              add_fours(integers[h], low, strip.x + 4 * (f * H + h));
              add_fours(integers[h], high, strip.x + 4 * ((f + kFours / 2) * H + h));
            }
          }
        }
        Vec scale = load(reinterpret_cast<const f16*>(from));
#pragma GCC unroll 12
        for (int h = 0; h < H; ++h)
          total[s][h] = fma(Vec(_mm512_cvtepi32_ps(integers[h])), scale * strip.scale[h], total[s][h]);
      }
    each_sum<S, H, 1>([&](int s, int h, int) { store(sums + (s * H + h) * kGroupRows, total[s][h]); });
  }
};

#endif
#if !defined(__AVX2__)

template <PackedFormat kFormat>
struct PlainKernel {
  static constexpr int kRows = 4;
  static constexpr bool kMagnitudes = false;
  static constexpr int streams(int) { return 1; }

  template <int H, int S>
  static void run(const PackedInputs& in, int64_t first_row, Depth depth, const uint8_t* groups, int64_t, float* sums) {
    constexpr int kBytes = int(packed_block_bytes(kFormat));
    const uint8_t* w = groups;
    IntegerStrip<H> strip(in, first_row, depth.begin);
    if (depth.begin == 0) std::fill_n(sums, H * kGroupRows, 0.0f);
    for (int64_t block = 0; block < depth.blocks; ++block, w += kBytes, strip.next())
      for (int h = 0; h < H; ++h) {
        int32_t integers[kGroupRows] = {};
        for (int c = 0; c < int(kBlockColumns); ++c)
          for (int l = 0; l < int(kGroupRows); ++l) {
            uint8_t byte = w[packed_offset(kFormat, c, l)];
            int number = kFormat == PackedFormat::q8 ? int8_t(byte) : (byte >> (c < 16 ? 0 : 4) & 15) - 8;
            integers[l] += number * strip.x[4 * (c / 4 * H + h) + c % 4];
          }
        for (int l = 0; l < int(kGroupRows); ++l) {
          f16 scale;
          std::memcpy(&scale, w + 2 * l, 2);
          float& sum = sums[h * kGroupRows + l];
          sum = std::fma(float(integers[l]), to_float(scale) * strip.scale[h], sum);
        }
      }
  }
};

#endif

}  // namespace ds::DS_ISA
