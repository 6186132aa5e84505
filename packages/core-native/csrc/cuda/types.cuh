// Elements on the device: conversions between float and the 16-bit types, and loads and stores of several at once.
#pragma once
#include <cstdint>
#include <cstring>

#include "../runtime/dtype.h"
#include "launch.cuh"

namespace ds::cuda {

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ __forceinline__ float to_f32(f16 x) { return __half2float(__ushort_as_half(x.bits)); }

// Rounds to nearest even; NaN stays NaN.
template <class T>
__device__ __forceinline__ T from_f32(float x) {
  if constexpr (sizeof(T) == 4)
    return x;
  else if constexpr (std::is_same_v<T, bf16>)
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  else
    return {__half_as_ushort(__float2half_rn(x))};
}

// Any dtype as a number of type N = float or double.
template <class N, class T>
__device__ __forceinline__ N widen(T x) {
  if constexpr (std::is_arithmetic_v<T>)
    return N(x);
  else
    return N(to_f32(x));
}
template <class T, class N>
__device__ __forceinline__ T narrow(N x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return from_f32<T>(float(x));
}

// The elements of one 16-byte access.
template <class T>
constexpr int kPack = 16 / int(sizeof(T));

// N elements in registers. In memory they must be aligned to min(16, N sizeof(T)) bytes.
template <class T, int N = kPack<T>>
struct Pack {
  T at[N];
};

template <int kBytes>
using Word =
    std::conditional_t<kBytes % 16 == 0, uint4,
                       std::conditional_t<kBytes % 8 == 0, uint2,
                                          std::conditional_t<kBytes % 4 == 0, uint32_t,
                                                             std::conditional_t<kBytes % 2 == 0, uint16_t, uint8_t>>>>;

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* p) {
  using W = Word<N* int(sizeof(T))>;
  constexpr int kWords = N * int(sizeof(T)) / int(sizeof(W));
  W words[kWords];
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const W*>(p)[i];
  Pack<T, N> pack;
  memcpy(&pack, words, sizeof pack);
  return pack;
}

template <int N, class T>
__device__ __forceinline__ void store(T* p, const Pack<T, N>& pack) {
  using W = Word<N* int(sizeof(T))>;
  constexpr int kWords = N * int(sizeof(T)) / int(sizeof(W));
  W words[kWords];
  memcpy(words, &pack, sizeof pack);
#pragma unroll
  for (int i = 0; i < kWords; ++i) reinterpret_cast<W*>(p)[i] = words[i];
}

// The first `count` of N elements; those beyond are 0, or left alone by the store. kWhole: `p` is aligned as for load.
template <int N, bool kWhole, class T>
__device__ __forceinline__ Pack<T, N> load_up_to(int64_t count, const T* p) {
  if (kWhole && count >= N) return load<N>(p);
  Pack<T, N> pack{};
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (k < count) pack.at[k] = p[k];
  return pack;
}
template <bool kWhole, int N, class T>
__device__ __forceinline__ void store_up_to(int64_t count, T* p, const Pack<T, N>& pack) {
  if (kWhole && count >= N) return store(p, pack);
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (k < count) p[k] = pack.at[k];
}

// Whether pointers allow 16-byte accesses. A view may start at any element. Null (absent) is fine.
template <class... Pointers>
bool aligned_16(Pointers... p) {
  return ((reinterpret_cast<uintptr_t>(p) | ...) & 15) == 0;
}

// Calls fn<N>(first, count), N elements an access, for the whole packs of [0, n) and for what is left; for all of it
// one by one where a pointer does not allow 16-byte accesses.
template <class T, class F>
void in_packs(int64_t n, bool aligned, F&& fn) {
  int64_t whole = aligned ? n / kPack<T> * kPack<T> : 0;
  if (whole > 0) fn.template operator()<kPack<T>>(int64_t(0), whole);
  if (whole < n) fn.template operator()<1>(whole, n - whole);
}

}  // namespace ds::cuda
