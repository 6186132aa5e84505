// Transposition of packed blocks of f32.
#pragma once
#include "../common/vec.h"

namespace ds::DS_ISA {

// Reads 4 elements of each of kLanes rows (`ld` apart): column[k] gets the k-th element of every row.
inline void read_columns(const float* rows, int64_t ld, Vec (&column)[4]) {
#if defined(__AVX512F__) || defined(__AVX2__)
  // Part k holds the quads of rows k, k + 4, ...: what is left is a 4 x 4 transposition in each quad of lanes.
  Vec part[4];
  for (int k = 0; k < 4; ++k) {
    auto quad = [&](int i) { return _mm_loadu_ps(rows + (k + 4 * i) * ld); };
    __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(quad(0)), quad(1), 1);
#if defined(__AVX512F__)
    __m256 high = _mm256_insertf128_ps(_mm256_castps128_ps256(quad(2)), quad(3), 1);
    part[k] = Vec(_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1));
#else
    part[k] = Vec(low);
#endif
  }
#if defined(__AVX512F__)
  auto low_singles = [](Vec a, Vec b) { return __m512d(_mm512_unpacklo_ps(__m512(a), __m512(b))); };
  auto high_singles = [](Vec a, Vec b) { return __m512d(_mm512_unpackhi_ps(__m512(a), __m512(b))); };
  auto low_pairs = [](__m512d a, __m512d b) { return Vec(_mm512_unpacklo_pd(a, b)); };
  auto high_pairs = [](__m512d a, __m512d b) { return Vec(_mm512_unpackhi_pd(a, b)); };
#else
  auto low_singles = [](Vec a, Vec b) { return __m256d(_mm256_unpacklo_ps(__m256(a), __m256(b))); };
  auto high_singles = [](Vec a, Vec b) { return __m256d(_mm256_unpackhi_ps(__m256(a), __m256(b))); };
  auto low_pairs = [](__m256d a, __m256d b) { return Vec(_mm256_unpacklo_pd(a, b)); };
  auto high_pairs = [](__m256d a, __m256d b) { return Vec(_mm256_unpackhi_pd(a, b)); };
#endif
  auto low01 = low_singles(part[0], part[1]), low23 = low_singles(part[2], part[3]);
  auto high01 = high_singles(part[0], part[1]), high23 = high_singles(part[2], part[3]);
  column[0] = low_pairs(low01, low23), column[1] = high_pairs(low01, low23);
  column[2] = low_pairs(high01, high23), column[3] = high_pairs(high01, high23);
#else
  for (int k = 0; k < 4; ++k)
    for (int lane = 0; lane < kLanes; ++lane) column[k][lane] = rows[lane * ld + k];
#endif
}

// to [columns, n] = factor * (from [n, ld])^T. n is a multiple of kLanes, columns and ld of 4.
inline void transpose(const float* from, int64_t n, int64_t columns, int64_t ld, float* to, float factor) {
  for (int64_t i = 0; i < n; i += kLanes)
    for (int64_t d = 0; d < columns; d += 4) {
      Vec column[4];
      read_columns(from + i * ld + d, ld, column);
      for (int k = 0; k < 4; ++k) store(to + (d + k) * n + i, column[k] * factor);
    }
}

}  // namespace ds::DS_ISA
