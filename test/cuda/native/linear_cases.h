// The three ops of a linear layer at one shape, for our own kernels and for those of cuBLASLt.
#pragma once
#include <algorithm>

#include "cases.h"
#include "kernels/gemm/linear.h"

namespace ds::test {

struct LinearShape {
  int64_t R, K, N, shift;
};

// Forward with each epilogue, and the gradients with and without what was there before.
inline void linear_case(Cases& cases, const LinearShape& shape, DType rows, DType weights) {
  auto [R, K, N, shift] = shape;
  std::string at = "[" + std::to_string(R) + ", " + std::to_string(K) + "] x [" + std::to_string(N) + ", K]^T + " +
                   std::to_string(shift) + " " + dtype_name(rows) + " " + dtype_name(weights);
  auto optional = [](const Tensor& t) {
    Optional o;
    static_cast<Tensor&>(o) = t;
    return o;
  };
  // Sums of a deviation near 1: there the GELU bends, and the bound is that of terms near 1.
  auto small = [](int64_t terms) { return 1 / std::sqrt(double(std::max<int64_t>(terms, 1))); };
  enum { kBare, kBias, kGelu, kPre, kResidual, kInPlace, kAll, kForms };
  for (int form = 0; form < kForms; ++form) {
    cases.begin(shift);
    Linear op{};
    op.x = cases.tensor(rows, {R, K});
    op.weight = cases.tensor(weights, {N, K}, 0, small(K));
    op.y = cases.tensor(rows, {R, N});
    if (form != kBare) op.bias = optional(cases.tensor(weights, {N}));
    if (form == kPre || form == kAll) op.pre = optional(cases.tensor(rows, {R, N}));
    if (form >= kResidual) op.residual = optional(form == kInPlace ? op.y : cases.tensor(rows, {R, N}));
    op.gelu = form == kGelu || form == kAll;
    cases.run(op, at + " form " + std::to_string(form), double(K), 4);
  }
  if (N == 0) return;  // dy [R, 0] doesn't say what R is
  for (bool accumulate : {false, true}) {
    std::string what = at + (accumulate ? " accumulate" : "");
    cases.begin(shift);
    LinearBackwardInput input{};
    input.dy = cases.tensor(rows, {R, N});
    input.weight = cases.tensor(weights, {N, K}, 0, small(N));
    input.dx = cases.tensor(rows, {R, K});
    input.accumulate = accumulate;
    cases.run(input, what, double(N), 4);
    for (bool bias : {false, true}) {
      cases.begin(shift);
      LinearBackwardWeight weight{};
      weight.dy = cases.tensor(rows, {R, N}, 0, small(R));
      weight.x = cases.tensor(rows, {R, K});
      weight.dweight = cases.tensor(weights, {N, K});
      if (bias) weight.dbias = optional(cases.tensor(weights, {N}));
      weight.accumulate = accumulate;
      cases.run(weight, what + (bias ? " dbias" : ""), double(R), 4);
    }
  }
}

}  // namespace ds::test
