// linear: y = epilogue(x W^T + bias): nothing, GELU (tanh form), or + residual.
// shapes   x [R, K]; weight [N, K]; bias [N]; y, pre, residual [R, N]
// dtypes   x, y, pre, residual: one of f32 bf16 f16 (f64 on ref); weight, bias: f32, or that of x; sums f32
// saves    pre, what goes into the GELU, if asked for
// alias    y may be residual                   limits   K >= 1, R and N >= 0
// source   GELU: Hendrycks & Gimpel 2016, tanh form with BLOOM's constants
//
// linear_backward_input:  dx [R, K] = dy [R, N] W
// linear_backward_weight: dweight [N, K] = dy^T x, dbias [N] = column sums of dy; f32, or that of x
// The results are added to what is there when `accumulate`.
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/cpu_isa.h"

namespace ds {

struct Linear {
  static constexpr const char* name = "linear";
  Tensor y;
  Optional pre;
  Tensor x, weight;
  Optional bias, residual;
  bool gelu;

  void visit(auto& v) { v(y, pre, x, weight, bias, residual, gelu); }
  void check() const {
    DS_REQUIRE(weight.rank == 2 && x.dim(-1) == weight.dim(1));
    int64_t R = x.rows(), N = weight.dim(0);
    DS_REQUIRE(y.numel() == R * N && y.dtype == x.dtype);
    DS_REQUIRE(weight.dtype == x.dtype || weight.dtype == DType::f32);
    DS_REQUIRE(!pre || (pre.numel() == R * N && pre.dtype == x.dtype));
    DS_REQUIRE(!bias || (bias.numel() == N && bias.dtype == weight.dtype));
    DS_REQUIRE(!residual || (residual.numel() == R * N && residual.dtype == x.dtype));
  }
  void ref() const;
  void cpu() const;
};

struct LinearBackwardInput {
  static constexpr const char* name = "linear_backward_input";
  Tensor dx;
  Tensor dy, weight;
  bool accumulate;

  void visit(auto& v) { v(dx, dy, weight, accumulate); }
  void check() const {
    DS_REQUIRE(weight.rank == 2 && dy.dim(-1) == weight.dim(0));
    DS_REQUIRE(dx.numel() == dy.rows() * weight.dim(1) && dx.dtype == dy.dtype);
    DS_REQUIRE(weight.dtype == dy.dtype || weight.dtype == DType::f32);
  }
  void ref() const;
  void cpu() const;
};

struct LinearBackwardWeight {
  static constexpr const char* name = "linear_backward_weight";
  Tensor dweight;
  Optional dbias;
  Tensor dy, x;
  bool accumulate;

  void visit(auto& v) { v(dweight, dbias, dy, x, accumulate); }
  void check() const {
    DS_REQUIRE(dweight.rank == 2 && dy.dim(-1) == dweight.dim(0) && x.dim(-1) == dweight.dim(1));
    DS_REQUIRE(dy.rows() == x.rows() && dy.dtype == x.dtype);
    DS_REQUIRE(dweight.dtype == x.dtype || dweight.dtype == DType::f32);
    DS_REQUIRE(!dbias || (dbias.numel() == dweight.dim(0) && dbias.dtype == dweight.dtype));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(Linear, linear)
DS_CPU_KERNEL(LinearBackwardInput, linear_backward_input)
DS_CPU_KERNEL(LinearBackwardWeight, linear_backward_weight)

}  // namespace ds
