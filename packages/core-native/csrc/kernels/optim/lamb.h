// LAMB: Adam's direction, scaled for each parameter by the ratio of the norms of its weights and of that direction. A
// parameter may be cut over ranks, so a step is two ops with a sum over its pieces, and over ranks, between them.
//
// lamb_moments, for a piece of one parameter:
//   g = grad * grad_scale                        unscale and clip
//   m = fma(beta1, m, (1 - beta1) g)
//   v = fma(beta2, v, ((1 - beta2) g) g)
//   squares = (sum of p^2, sum of u^2), u = fma(weight_decay, p, m / (sqrt(v) + eps)); added to what is there when
//     `accumulate`
// lamb_step, with the squares of the whole parameter:
//   trust = min(max_coefficient, max(min_coefficient, sqrt(squares[0] / squares[1]))), 1 where a norm is 0
//   p = fma(-rate trust, u, p)
//   copy = p, rounded to its dtype
// u is made again in lamb_step, from what it reads anyway. rate = lr sqrt(bias_correction2) / bias_correction1. The
// factors are made in f64 and rounded once.
// shapes: p, m, v, grad, copy of one size; squares [2]
// dtypes: p, m, v f32 (f64 on ref); grad f32, bf16, f16; copy bf16, f16 or f32; squares f64
// alias: p, m, v are updated in place; nothing shares memory with anything else
// exact: elements: these operations in this order on every vector unit. squares: on the cpu 16 interleaved chains over
//   blocks of 4096 elements, then the blocks in order, all in f64: the bits depend on neither the instruction set nor
//   threads. They do depend on where a parameter is cut: equal cuts give equal bits
// limits: a gradient that is not finite makes all of its parameter not finite: look at the norm first
// source: You et al. 2020, "Large Batch Optimization for Deep Learning", alg. 2, with the moments as DeepSpeed's
//   fused_lamb has them: uncorrected in u, corrected in the rate
#pragma once
#include <cmath>

#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct LambMoments {
  static constexpr const char* name = "lamb_moments";
  Tensor m, v, squares;
  Tensor p, grad;
  double beta1, beta2, eps, weight_decay, grad_scale;
  bool accumulate;

  void visit(auto& visitor) {
    visitor(m, v, squares, p, grad, beta1, beta2, eps, weight_decay, grad_scale, accumulate);
  }
  void check() const {
    int64_t n = p.numel();
    DS_REQUIRE(m.numel() == n && v.numel() == n && grad.numel() == n && is_float(grad.dtype));
    DS_REQUIRE(m.dtype == p.dtype && v.dtype == p.dtype && (p.dtype == DType::f32 || p.dtype == DType::f64));
    DS_REQUIRE(squares.numel() == 2 && squares.dtype == DType::f64);
    DS_REQUIRE_APART(m, v);
    DS_REQUIRE_APART(p, m);
    DS_REQUIRE_APART(p, v);
    DS_REQUIRE_APART(grad, m);
    DS_REQUIRE_APART(grad, v);
    for (const Tensor* t : {&m, &v, &p, &grad}) DS_REQUIRE(!overlap(squares, *t));
  }
  void ref() const;
  void cpu() const;
};

struct LambStep {
  static constexpr const char* name = "lamb_step";
  Tensor p;
  Optional copy;
  Tensor m, v, squares;
  double rate, eps, weight_decay, min_coefficient, max_coefficient;

  void visit(auto& visitor) {
    visitor(p, copy, m, v, squares, rate, eps, weight_decay, min_coefficient, max_coefficient);
  }
  void check() const {
    int64_t n = p.numel();
    DS_REQUIRE(m.numel() == n && v.numel() == n && (!copy || (copy.numel() == n && is_float(copy.dtype))));
    DS_REQUIRE(m.dtype == p.dtype && v.dtype == p.dtype && (p.dtype == DType::f32 || p.dtype == DType::f64));
    DS_REQUIRE(squares.numel() == 2 && squares.dtype == DType::f64);
    DS_REQUIRE_APART(p, m);
    DS_REQUIRE_APART(p, v);
    DS_REQUIRE_APART(copy, p);
    DS_REQUIRE_APART(copy, m);
    DS_REQUIRE_APART(copy, v);
    DS_REQUIRE(!overlap(squares, p) && !overlap(squares, copy));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(LambMoments, lamb_moments)
DS_CPU_KERNEL(LambStep, lamb_step)

}  // namespace ds
