// lion: one step of Lion, everything that an optimizer does to an element in one sweep. In f32:
//   g = grad * grad_scale                        unscale and clip
//   c = fma(beta1, m, (1 - beta1) g)
//   p = fma(-lr, sign(c), p * (1 - lr weight_decay))
//   m = fma(beta2, m, (1 - beta2) g)
//   copy = p, rounded to its dtype
// The factors are made in f64 and rounded once. sign(0) = 0, where DeepSpeed's bit trick steps by lr.
// shapes: all of one size
// dtypes: p, m f32 (f64 on ref); grad f32, bf16, f16; copy bf16, f16 or f32
// alias: p, m are updated in place; grad and copy share memory with none of the others, except that copy may be grad
//   where both have one dtype
// exact: these operations in this order on every vector unit: the bits depend on neither the instruction set, nor
//   threads, nor where an element stands, so that any cut of a parameter over ranks gives the same parameter
// limits: a gradient of NaN makes its p, m NaN, an infinite one its m infinite: look at the norm first
// source: Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", alg. 2; the decay first, as in DeepSpeed
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct Lion {
  static constexpr const char* name = "lion";
  Tensor p, m;
  Optional copy;
  Tensor grad;
  double lr, beta1, beta2, weight_decay, grad_scale;

  void visit(auto& visitor) { visitor(p, m, copy, grad, lr, beta1, beta2, weight_decay, grad_scale); }
  void check() const {
    int64_t n = p.numel();
    DS_REQUIRE(m.numel() == n && grad.numel() == n && (!copy || copy.numel() == n));
    DS_REQUIRE(m.dtype == p.dtype && (p.dtype == DType::f32 || p.dtype == DType::f64));
    DS_REQUIRE(is_float(grad.dtype) && (!copy || is_float(copy.dtype)));
    DS_REQUIRE_APART(p, m);
    DS_REQUIRE_APART(grad, p);
    DS_REQUIRE_APART(grad, m);
    DS_REQUIRE_APART(copy, p);
    DS_REQUIRE_APART(copy, m);
    DS_REQUIRE_SAME_OR_APART(copy, grad);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(Lion, lion)

}  // namespace ds
