// The elementwise family. All tensors of a call have the same number of elements; shapes are the caller's affair.
// exact: each element depends on its own inputs only, so the bits do not depend on threads, views or neighbours.
// dtypes: f32, bf16, f16 (f64 on ref); arithmetic in f32, rounded once to the dtype of the output.
// alias: an output may be an input (the same bytes), never overlap one partly. Empty tensors are a no-op.
//
// scale_add: out = alpha * a + beta * b, as fma(alpha, a, beta * b). out has the dtype of a; b may have another, so
//   that 16-bit gradients add up in f32.
// copy: out = factor * x, between any two float dtypes, and from i32 and u8 to floats; with factor 1 also from i32 to
//   i32 and u8 to u8. f64 is allowed on the cpu too: sums and norms are kept in it.
// fill: out = value, rounded to its dtype (any).
// gelu: y = x / 2 * (1 + tanh(u)), u = 0.79788456 x (1 + 0.044715 x^2).  source: Hendrycks & Gimpel 2016, sec. 2, with
//   the constant cut as in BLOOM.
// gelu_backward: dx = dy * gelu'(x); x, the input of gelu, is what backward needs.
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct ScaleAdd {
  static constexpr const char* name = "scale_add";
  Tensor out, a, b;
  double alpha, beta;

  void visit(auto& v) { v(out, a, b, alpha, beta); }
  void check() const {
    DS_REQUIRE(a.numel() == out.numel() && b.numel() == out.numel());
    DS_REQUIRE(is_float(a.dtype) && is_float(b.dtype) && out.dtype == a.dtype);
    DS_REQUIRE_SAME_OR_APART(out, a);
    DS_REQUIRE_SAME_OR_APART(out, b);
  }
  void ref() const;
  void cpu() const;
};

struct Copy {
  static constexpr const char* name = "copy";
  Tensor out, x;
  double factor;

  void visit(auto& v) { v(out, x, factor); }
  void check() const {
    DS_REQUIRE(x.numel() == out.numel());
    DS_REQUIRE(is_float(out.dtype) || (out.dtype == x.dtype && factor == 1));
    DS_REQUIRE_SAME_OR_APART(out, x);
  }
  void ref() const;
  void cpu() const;
};

struct Fill {
  static constexpr const char* name = "fill";
  Tensor out;
  double value;

  void visit(auto& v) { v(out, value); }
  void check() const {}
  void ref() const;
  void cpu() const;
};

struct Gelu {
  static constexpr const char* name = "gelu";
  Tensor y, x;

  void visit(auto& v) { v(y, x); }
  void check() const {
    DS_REQUIRE(y.numel() == x.numel() && y.dtype == x.dtype && is_float(x.dtype));
    DS_REQUIRE_SAME_OR_APART(y, x);
  }
  void ref() const;
  void cpu() const;
};

struct GeluBackward {
  static constexpr const char* name = "gelu_backward";
  Tensor dx, dy, x;

  void visit(auto& v) { v(dx, dy, x); }
  void check() const {
    DS_REQUIRE(dx.numel() == x.numel() && dy.numel() == x.numel());
    DS_REQUIRE(dx.dtype == x.dtype && dy.dtype == x.dtype && is_float(x.dtype));
    DS_REQUIRE_SAME_OR_APART(dx, dy);
    DS_REQUIRE_SAME_OR_APART(dx, x);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(ScaleAdd, scale_add)
DS_CPU_KERNEL(Copy, copy)
DS_CPU_KERNEL(Fill, fill)
DS_CPU_KERNEL(Gelu, gelu)
DS_CPU_KERNEL(GeluBackward, gelu_backward)

}  // namespace ds
