// rms_norm: y = s * rstd(s) * weight over the last dim, s = x (+ residual), rstd = 1/sqrt(mean(s^2) + eps).
// shapes: y, x, residual, sum [R, C]; weight [C]; rstd [R]
// dtypes: y, x, residual, sum one of f32, bf16, f16 (f64 on ref); weight f32, or that of x; rstd f32 (f64)
// alias: y, sum may be x or residual
// saves: rstd, and s (x itself, or sum)
// exact: cpu: the same bits for any number of threads and whatever the other rows hold. Rounded once, at the end;
//   Hugging Face's LLaMA rounds s * rstd to the dtype of x before it multiplies
// limits: C >= 1, R >= 0 (empty is a no-op); squares are f32: |s| below 1e19
// source: Zhang & Sennrich 2019, eq. 4; eps inside the root as in Touvron et al. 2023 (LLaMA)
//
// rms_norm_backward: with g = dy * weight and n = s * rstd,
//   dx = rstd * (g - n * mean(g * n)) (+ dsum);  dweight = sum over rows of dy * n
// dsum, the gradient that reaches s by the residual path, is added in the same pass. dx may be dy or dsum.
// dweight: any float dtype, added to what is there when `accumulate`; summed in f32, rows in order.
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/cpu_isa.h"

namespace ds {

struct RmsNorm {
  static constexpr const char* name = "rms_norm";
  Tensor y, rstd;
  Optional sum;
  Tensor x;
  Optional residual;
  Tensor weight;
  double eps;

  void visit(auto& v) { v(y, rstd, sum, x, residual, weight, eps); }
  void check() const {
    int64_t R = x.rows(), C = x.dim(-1);
    DS_REQUIRE(y.numel() == R * C && y.dtype == x.dtype);
    DS_REQUIRE(rstd.numel() == R && rstd.dtype == (x.dtype == DType::f64 ? DType::f64 : DType::f32));
    DS_REQUIRE(weight.numel() == C && (weight.dtype == x.dtype || weight.dtype == DType::f32));
    DS_REQUIRE(sum.present == residual.present);
    DS_REQUIRE(!sum || (sum.numel() == R * C && sum.dtype == x.dtype && residual.numel() == R * C &&
                        residual.dtype == x.dtype));
  }
  void ref() const;
  void cpu() const;
};

struct RmsNormBackward {
  static constexpr const char* name = "rms_norm_backward";
  Tensor dx, dweight;
  Tensor dy;
  Optional dsum;
  Tensor s, rstd, weight;
  bool accumulate;

  void visit(auto& v) { v(dx, dweight, dy, dsum, s, rstd, weight, accumulate); }
  void check() const {
    int64_t R = s.rows(), C = s.dim(-1);
    DS_REQUIRE(dx.numel() == R * C && dx.dtype == s.dtype && dy.numel() == R * C && dy.dtype == s.dtype);
    DS_REQUIRE(!dsum || (dsum.numel() == R * C && dsum.dtype == s.dtype));
    DS_REQUIRE(rstd.numel() == R && rstd.dtype == (s.dtype == DType::f64 ? DType::f64 : DType::f32));
    DS_REQUIRE(weight.numel() == C && (weight.dtype == s.dtype || weight.dtype == DType::f32));
    DS_REQUIRE(dweight.numel() == C);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(RmsNorm, rms_norm)
DS_CPU_KERNEL(RmsNormBackward, rms_norm_backward)

}  // namespace ds
