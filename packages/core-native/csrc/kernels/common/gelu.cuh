// GELU in the tanh form of BLOOM and its slope on the device, for gelu itself and for the epilogues that fuse it; the
// formulas of gelu.h.
#pragma once
#include "../../cuda/launch.cuh"
#include "gelu.h"

namespace ds::cuda {

// 1 / (1 + exp(-2u)). kFast: with the approximate exponential and quotient, whose error of a few 2^-22 is far below a
// rounding to 16 bits; exact ones would cost a 16-bit kernel more than its memory traffic.
template <bool kFast>
__device__ __forceinline__ float gelu_gate(float x) {
  float u2 = x * (float(2 * kGeluRate) + float(2 * kGeluRate * kGeluCubic) * (x * x));
  if constexpr (kFast) return __fdividef(1.0f, 1.0f + __expf(-u2));
  return 1.0f / (1.0f + expf(-u2));
}

template <bool kFast>
__device__ __forceinline__ float gelu(float x) {
  return x * gelu_gate<kFast>(x);
}

template <bool kFast>
__device__ __forceinline__ float gelu_slope(float x) {
  // Beyond 16 the slope is 0 or 1 in any float; stopping there keeps x^2 finite. A NaN passes both comparisons.
  x = x > 16.0f ? 16.0f : x < -16.0f ? -16.0f : x;
  float s = gelu_gate<kFast>(x);
  float rate = float(2 * kGeluRate) + float(6 * kGeluRate * kGeluCubic) * (x * x);
  return s + (x * rate) * (s * (1.0f - s));
}

}  // namespace ds::cuda
