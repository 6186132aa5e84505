// A vector of floats as doubles: two native vectors.
#pragma once
#include "vec.h"

namespace ds::DS_ISA {

constexpr int kWideLanes = kLanes / 2;
typedef double Wide __attribute__((vector_size(kWideLanes * 8)));

struct WidePair {
  Wide low, high;
};

inline WidePair widen(Vec v) {
#if defined(__AVX512F__)
  __m512 x = __m512(v);
  return {Wide(_mm512_cvtps_pd(_mm512_castps512_ps256(x))), Wide(_mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)))};
#elif defined(__AVX2__)
  __m256 x = __m256(v);
  return {Wide(_mm256_cvtps_pd(_mm256_castps256_ps128(x))), Wide(_mm256_cvtps_pd(_mm256_extractf128_ps(x, 1)))};
#else
  WidePair w;
  for (int i = 0; i < kWideLanes; ++i) w.low[i] = v[i], w.high[i] = v[i + kWideLanes];
  return w;
#endif
}

}  // namespace ds::DS_ISA
