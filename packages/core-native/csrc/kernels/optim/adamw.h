// adamw: one step of Adam with weight decay, everything that an optimizer does to an element in one sweep. In f32:
//   g = grad * grad_scale                                 unscale and clip
//   g = fma(weight_decay, p, g)                           L2 mode only (decoupled = false)
//   m = fma(beta1, m, (1 - beta1) g)
//   v = fma(beta2, v, ((1 - beta2) g) g)
//   p = p * (1 - lr weight_decay)                         decoupled mode only: AdamW
//   p = fma(-lr / bias_correction1, m / fma(sqrt(v), 1 / sqrt(bias_correction2), eps), p)
//   copy = p, rounded to its dtype
// The factors are made in f64 and rounded once. bias_correction_i is 1 - beta_i^t, or 1 for none.
// shapes: all of one size
// dtypes: p, m, v f32 (f64 on ref); grad f32, bf16, f16; copy bf16, f16 or f32
// alias: p, m, v are updated in place; grad and copy share memory with none of the others, except that copy may be grad
//   where both have one dtype
// exact: these operations in this order on every vector unit: the bits depend on neither the instruction set, nor
//   threads, nor where an element stands, so that any cut of a parameter over ranks gives the same parameter
// limits: a gradient that is not finite makes its p, m, v not finite: look at the norm first
// source: Kingma & Ba 2015, alg. 1; Loshchilov & Hutter 2019, alg. 2 (decay before the step, eps outside the root)
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct AdamW {
  static constexpr const char* name = "adamw";
  Tensor p, m, v;
  Optional copy;
  Tensor grad;
  double lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2, grad_scale;
  bool decoupled;

  void visit(auto& visitor) {
    visitor(p, m, v, copy, grad, lr, beta1, beta2, eps, weight_decay, bias_correction1, bias_correction2, grad_scale,
            decoupled);
  }
  void check() const {
    int64_t n = p.numel();
    DS_REQUIRE(m.numel() == n && v.numel() == n && grad.numel() == n && (!copy || copy.numel() == n));
    DS_REQUIRE(m.dtype == p.dtype && v.dtype == p.dtype && (p.dtype == DType::f32 || p.dtype == DType::f64));
    DS_REQUIRE(is_float(grad.dtype) && (!copy || is_float(copy.dtype)));
    DS_REQUIRE_APART(p, m);
    DS_REQUIRE_APART(p, v);
    DS_REQUIRE_APART(m, v);
    DS_REQUIRE_APART(grad, p);
    DS_REQUIRE_APART(grad, m);
    DS_REQUIRE_APART(grad, v);
    DS_REQUIRE_APART(copy, p);
    DS_REQUIRE_APART(copy, m);
    DS_REQUIRE_APART(copy, v);
    DS_REQUIRE_SAME_OR_APART(copy, grad);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(AdamW, adamw)

}  // namespace ds
