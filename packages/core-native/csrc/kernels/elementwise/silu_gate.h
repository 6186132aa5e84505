// silu_gate: y = silu(gate) * up, silu(x) = x / (1 + exp(-x)): the gate of LLaMA-family MLPs, in one pass. SiLU alone
// has no op: no model here uses it without its product. shapes: all of one number of elements; shapes are the caller's
// affair dtypes: all of one of f32, bf16, f16 (f64 on ref); arithmetic in f32, rounded once alias: an output may be an
// input (the same bytes), never overlap one partly saves: gate, up exact: each element depends on its own inputs only
// limits: silu of minus infinity is NaN, not its limit 0
// source: Shazeer 2020, "GLU Variants Improve Transformer", eq. 6 (SwiGLU); Elfwing et al. 2018, eq. 1
//
// silu_gate_backward: with s = 1 / (1 + exp(-gate)),
//   dgate = dy * up * s (1 + gate (1 - s));  dup = dy * gate * s
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct SiluGate {
  static constexpr const char* name = "silu_gate";
  Tensor y, gate, up;

  void visit(auto& v) { v(y, gate, up); }
  void check() const {
    DS_REQUIRE(y.numel() == gate.numel() && up.numel() == gate.numel());
    DS_REQUIRE(is_float(gate.dtype) && y.dtype == gate.dtype && up.dtype == gate.dtype);
    DS_REQUIRE_SAME_OR_APART(y, gate);
    DS_REQUIRE_SAME_OR_APART(y, up);
  }
  void ref() const;
  void cpu() const;
};

struct SiluGateBackward {
  static constexpr const char* name = "silu_gate_backward";
  Tensor dgate, dup, dy, gate, up;

  void visit(auto& v) { v(dgate, dup, dy, gate, up); }
  void check() const {
    for (const Tensor* t : {&dgate, &dup, &dy, &up})
      DS_REQUIRE(t->numel() == gate.numel() && t->dtype == gate.dtype && is_float(gate.dtype));
    DS_REQUIRE_APART(dgate, dup);
    DS_REQUIRE_SAME_OR_APART(dgate, dy);
    DS_REQUIRE_SAME_OR_APART(dgate, gate);
    DS_REQUIRE_SAME_OR_APART(dgate, up);
    DS_REQUIRE_SAME_OR_APART(dup, dy);
    DS_REQUIRE_SAME_OR_APART(dup, gate);
    DS_REQUIRE_SAME_OR_APART(dup, up);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(SiluGate, silu_gate)
DS_CPU_KERNEL(SiluGateBackward, silu_gate_backward)

}  // namespace ds
