// The three ops of a linear layer at one shape, for our own kernels and for those of cuBLASLt.
#pragma once
#include <algorithm>

#include "cases.h"
#include "kernels/gemm/linear.h"

namespace ds::test {

struct LinearShape {
  int64_t R, K, N, shift;

  std::string text(DType rows, DType weights) const {
    return "[" + std::to_string(R) + ", " + std::to_string(K) + "] x [" + std::to_string(N) + ", K]^T + " +
           std::to_string(shift) + " " + dtype_name(rows) + " " + dtype_name(weights);
  }
};

// Of one factor, for sums of a deviation near 1: there the GELU bends, and the bound is that of terms near 1.
inline double deviation_for(int64_t terms) { return 1 / std::sqrt(double(std::max<int64_t>(terms, 1))); }

inline Optional optional(const Tensor& t) {
  Optional o;
  static_cast<Tensor&>(o) = t;
  return o;
}

enum LinearForm { kBare, kBias, kGelu, kPre, kResidual, kInPlace, kAll, kLinearForms };

inline void forward_case(Cases& cases, const LinearShape& shape, DType rows, DType weights, int form) {
  auto [R, K, N, shift] = shape;
  cases.begin(shift);
  Linear op{};
  op.x = cases.tensor(rows, {R, K});
  op.weight = cases.tensor(weights, {N, K}, 0, deviation_for(K));
  op.y = cases.tensor(rows, {R, N});
  if (form != kBare) op.bias = optional(cases.tensor(weights, {N}));
  if (form == kPre || form == kAll) op.pre = optional(cases.tensor(rows, {R, N}));
  if (form >= kResidual) op.residual = optional(form == kInPlace ? op.y : cases.tensor(rows, {R, N}));
  op.gelu = form == kGelu || form == kAll;
  cases.run(op, shape.text(rows, weights) + " form " + std::to_string(form), double(K), 4);
}

inline void input_case(Cases& cases, const LinearShape& shape, DType rows, DType weights, bool accumulate) {
  auto [R, K, N, shift] = shape;
  cases.begin(shift);
  LinearBackwardInput op{};
  op.dy = cases.tensor(rows, {R, N});
  op.weight = cases.tensor(weights, {N, K}, 0, deviation_for(N));
  op.dx = cases.tensor(rows, {R, K});
  op.accumulate = accumulate;
  cases.run(op, shape.text(rows, weights) + (accumulate ? " accumulate" : ""), double(N), 4);
}

inline void weight_case(Cases& cases, const LinearShape& shape, DType rows, DType weights, bool accumulate, bool bias) {
  auto [R, K, N, shift] = shape;
  cases.begin(shift);
  LinearBackwardWeight op{};
  op.dy = cases.tensor(rows, {R, N}, 0, deviation_for(R));
  op.x = cases.tensor(rows, {R, K});
  op.dweight = cases.tensor(weights, {N, K});
  if (bias) op.dbias = optional(cases.tensor(weights, {N}));
  op.accumulate = accumulate;
  cases.run(op, shape.text(rows, weights) + (accumulate ? " accumulate" : "") + (bias ? " dbias" : ""), double(R), 4);
}

// Forward with each epilogue, and the gradients with and without what was there before: 13 ops.
inline void linear_case(Cases& cases, const LinearShape& shape, DType rows, DType weights) {
  for (int form = 0; form < kLinearForms; ++form) forward_case(cases, shape, rows, weights, form);
  if (shape.N == 0) return;  // dy [R, 0] doesn't say what R is
  for (bool accumulate : {false, true}) {
    input_case(cases, shape, rows, weights, accumulate);
    for (bool bias : {false, true}) weight_case(cases, shape, rows, weights, accumulate, bias);
  }
}

}  // namespace ds::test
