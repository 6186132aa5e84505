// A vector of floats as wide as the instruction set of this translation unit (DS_ISA), with the few operations that the
// kernels need. Loads and stores convert from and to the storage type; tails go through the same arithmetic as whole
// vectors, so that an element's bits never depend on where it stands.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../../runtime/dtype.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ds::DS_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IVec __attribute__((vector_size(kLanes * 4)));
typedef uint32_t UVec __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HVec __attribute__((vector_size(kLanes * 2)));

inline Vec splat(float x) { return x - Vec{}; }
inline IVec as_int(Vec v) { return IVec(v); }  // between vectors of one size a cast keeps the bits
inline UVec as_uint(Vec v) { return UVec(v); }
inline Vec as_float(IVec v) { return Vec(v); }
inline Vec as_float(UVec v) { return Vec(v); }
inline Vec select(IVec mask, Vec yes, Vec no) { return mask ? yes : no; }  // mask: a comparison's 0 or -1

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const bf16* p) {
#if defined(__AVX512F__)
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return Vec(_mm512_slli_epi32(wide, 16));
#elif defined(__AVX2__)
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return Vec(_mm256_slli_epi32(wide, 16));
#else
  HVec h;
  std::memcpy(&h, p, sizeof h);
  return as_float(__builtin_convertvector(h, UVec) << 16);
#endif
}
inline Vec load(const f16* p) {
#if defined(__AVX512F__)
  return Vec(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return Vec(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = to_float(p[i]);
  return v;
#endif
}

inline Vec load(const int8_t* p) {
#if defined(__AVX512F__)
  return Vec(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#elif defined(__AVX2__)
  return Vec(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = p[i];
  return v;
#endif
}

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
// Rounds to nearest even by adding half a unit in integers; a NaN's payload must not be carried away: it turns quiet.
inline void store(bf16* p, Vec v) {
#if defined(__AVX512F__)
  __m512i u = __m512i(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  __mmask16 nan = _mm512_cmp_ps_mask(__m512(v), __m512(v), _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, u, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#elif defined(__AVX2__)
  __m256i u = __m256i(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  __m256i nan = __m256i(_mm256_cmp_ps(__m256(v), __m256(v), _CMP_UNORD_Q));
  __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);  // packing goes by 128-bit halves
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
#else
  UVec u = as_uint(v);
  UVec rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  UVec nan = (u >> 16) | 0x40;
  UVec is_nan = UVec((u & 0x7fffffffu) > 0x7f800000u);
  HVec h = __builtin_convertvector((nan & is_nan) | (rounded & ~is_nan), HVec);
  std::memcpy(p, &h, sizeof h);
#endif
}
inline void store(f16* p, Vec v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(__m512(v), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = to_f16(v[i]);
#endif
}

// The first `n` < kLanes elements; the other lanes read as zero.
template <class T>
inline Vec load_tail(const T* p, int64_t n) {
  T buffer[kLanes] = {};
  std::memcpy(buffer, p, size_t(n) * sizeof(T));
  return load(buffer);
}
template <class T>
inline void store_tail(T* p, Vec v, int64_t n) {
  T buffer[kLanes];
  store(buffer, v);
  std::memcpy(p, buffer, size_t(n) * sizeof(T));
}

// Calls body(i, load_at, store_at) for i = 0, kLanes, ... over [0, n), the last time on the tail.
// load_at(p) and store_at(p, v) take the row's base pointer.
template <class Body>
inline void for_lanes(int64_t n, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    body([i](auto* p) { return load(p + i); }, [i](auto* p, Vec v) { store(p + i, v); });
  if (int64_t tail = n - i; tail > 0)
    body([i, tail](auto* p) { return load_tail(p + i, tail); },
         [i, tail](auto* p, Vec v) { store_tail(p + i, v, tail); });
}

inline Vec max(Vec a, Vec b) { return select(a > b, a, b); }
inline Vec min(Vec a, Vec b) { return select(a < b, a, b); }
// a * b + c, rounded once; for results whose bits are part of the contract, which must not hang on what a compiler
// fuses.
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return Vec(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
#elif defined(__FMA__)
  return Vec(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
#else
  for (int i = 0; i < kLanes; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
#endif
}
inline Vec sqrt(Vec v) {
#if defined(__AVX512F__)
  return Vec(_mm512_sqrt_ps(__m512(v)));
#elif defined(__AVX2__)
  return Vec(_mm256_sqrt_ps(__m256(v)));
#else
  for (int i = 0; i < kLanes; ++i) v[i] = std::sqrt(v[i]);
  return v;
#endif
}

// Adds the lanes pairwise, halves first: a fixed order.
inline float sum(Vec v) {
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
}
inline float max_lane(Vec v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// exp(x) within 1.1 ulp for x in [-87, 88]; below it is 0, above it is infinity, NaN stays NaN.
// x = k ln2 + r with |r| <= ln2/2, ln2 in two parts (Cody & Waite); e^r = 1 + r + r^2 q(r), q of degree 4 fitted to the
// least relative error (4e-9).
inline Vec exp(Vec x) {
  constexpr float kLowest = -87.33654f, kHighest = 88.72283f;  // e^kLowest is the smallest normal float
  const float kMagic = 12582912.0f;                            // 1.5 * 2^23: adding it rounds to an integer
  Vec shifted = fma(x, splat(1.44269504088896341f), splat(kMagic)), k = shifted - kMagic;
  Vec r = fma(k, splat(2.12194440e-4f), fma(k, splat(-0.693359375f), x));
  Vec q = fma(splat(0.0013814599f), r, splat(0.0083687166f));
  q = fma(q, r, splat(0.041668389f));
  q = fma(q, r, splat(0.16666521f));
  q = fma(q, r, splat(0.49999994f));
  Vec power = fma(q, r * r, r) + 1.0f;
  // Times 2^k: k is in the lowest bits of `shifted`. Wherever k or r went wrong, x is beyond one of the two limits.
  Vec result = as_float(as_uint(power) + (as_uint(shifted) << 23));
  result = select(x < kLowest, Vec{}, result);
  return select(x <= kHighest, result, x + INFINITY);
}

// tanh(x) = 1 - 2 / (e^2x + 1), and x - x^3/3 + 2x^5/15 - ... near zero, where that difference cancels.
inline Vec tanh(Vec x) {
  Vec far = 1.0f - 2.0f / (exp(2.0f * x) + 1.0f);
  Vec s = x * x;
  Vec near =
      x *
      (1.0f + s * (-1.0f / 3 + s * (2.0f / 15 + s * (-17.0f / 315 + s * (62.0f / 2835 + s * (-1382.0f / 155925))))));
  return select((s < 0.16f), near, far);
}

}  // namespace ds::DS_ISA
