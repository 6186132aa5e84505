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
inline Vec select(IVec mask, Vec yes, Vec no) { return as_float((as_int(yes) & mask) | (as_int(no) & ~mask)); }

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const bf16* p) {
  HVec h;
  std::memcpy(&h, p, sizeof h);
  return as_float(__builtin_convertvector(h, UVec) << 16);
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

inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline void store(bf16* p, Vec v) {
  UVec u = as_uint(v);
  UVec rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  UVec nan = (u >> 16) | 0x40;
  UVec is_nan = UVec((u & 0x7fffffffu) > 0x7f800000u);
  HVec h = __builtin_convertvector((nan & is_nan) | (rounded & ~is_nan), HVec);
  std::memcpy(p, &h, sizeof h);
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

// exp(x) within 2 ulp for x in [-87, 88]; below it is 0, above it is infinity, NaN stays NaN.
// x = k ln2 + r with |r| <= ln2/2; ln2 in two parts (Cody & Waite), e^r by its Taylor polynomial of degree 7.
inline Vec exp(Vec x) {
  const float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  Vec clamped = min(max(x, splat(-88.0f)), splat(89.0f));
  Vec k = (clamped * 1.44269504088896341f + kMagic) - kMagic;
  Vec r = clamped - k * 0.693359375f;
  r = r - k * -2.12194440e-4f;
  Vec p = splat(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // 2^k in two steps: k reaches 128, which has no float of its own.
  IVec n = __builtin_convertvector(k, IVec), half = n >> 1;
  Vec result = p * as_float((half + 127) << 23) * as_float((n - half + 127) << 23);
  result = select(x < -87.33654f, Vec{}, result);
  result = select(x > 88.72283f, splat(INFINITY), result);
  return select(x == x, result, x);
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
