// GELU in the tanh form of BLOOM and its slope, on vectors; for gelu itself and for the epilogues that fuse it.
#pragma once
#ifdef DS_ISA
#include "vec.h"
#endif

namespace ds {
constexpr double kGeluRate = 0.79788456;  // sqrt(2 / pi), cut as in BLOOM
constexpr double kGeluCubic = 0.044715;
}  // namespace ds

#ifdef DS_ISA
namespace ds::DS_ISA {

// (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)): one exponential, and no cancellation where x is negative.
inline Vec gelu_gate(Vec x) {
  Vec u2 = x * (float(2 * kGeluRate) + float(2 * kGeluRate * kGeluCubic) * (x * x));
  return 1.0f / (1.0f + exp(-u2));
}

inline Vec gelu(Vec x) { return x * gelu_gate(x); }

// d gelu / dx = s + x s (1 - s) d(2u)/dx with s the gate.
inline Vec gelu_slope(Vec x) {
  // Beyond 16 the slope is 0 or 1 in any float; stopping there keeps x^2 finite. A NaN passes both comparisons.
  x = select(x > 16.0f, splat(16.0f), select(x < -16.0f, splat(-16.0f), x));
  Vec s = gelu_gate(x);
  Vec rate = float(2 * kGeluRate) + float(6 * kGeluRate * kGeluCubic) * (x * x);
  return s + (x * rate) * (s * (1.0f - s));
}

}  // namespace ds::DS_ISA
#endif
