// layer_norm: y = (s - mean(s)) * rstd(s) * weight + bias over the last dim, s = x (+ residual), rstd = 1/sqrt(var +
// eps). shapes   y, x, residual, sum [R, C]; weight, bias [C]; mean, rstd [R] dtypes   y, x, residual, sum: one of f32
// bf16 f16 (f64 on ref); weight, bias: f32, or that of x; mean, rstd f32 (f64) alias    y, sum may be x or residual
// saves   mean, rstd, and s (x itself, or sum) exact    cpu: the same bits for any number of threads and whatever the
// other rows hold limits   C >= 1, R >= 0 (empty is a no-op)    source  Ba et al. 2016, sec. 3, eqs. 3-4; var is the
// mean of squared deviations
//
// layer_norm_backward: with g = dy * weight and n = (s - mean) * rstd,
//   dx = rstd * (g - mean(g) - n * mean(g * n)) (+ dsum);  dweight = sum over rows of dy * n;  dbias = sum over rows of
//   dy
// dsum, the gradient that reaches s by the residual path, is added in the same pass. dx may be dy or dsum.
// dweight, dbias: any float dtype, added to what is there when `accumulate`; summed in f32, rows in order.
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/cpu_isa.h"

namespace ds {

struct LayerNorm {
  static constexpr const char* name = "layer_norm";
  Tensor y, mean, rstd;
  Optional sum;
  Tensor x;
  Optional residual;
  Tensor weight, bias;
  double eps;

  void visit(auto& v) { v(y, mean, rstd, sum, x, residual, weight, bias, eps); }
  void check() const {
    int64_t R = x.rows(), C = x.dim(-1);
    DS_REQUIRE(y.numel() == R * C && y.dtype == x.dtype);
    DS_REQUIRE(mean.numel() == R && rstd.numel() == R && mean.dtype == rstd.dtype);
    DS_REQUIRE(weight.numel() == C && bias.numel() == C && weight.dtype == bias.dtype);
    DS_REQUIRE(weight.dtype == x.dtype || weight.dtype == DType::f32);
    DS_REQUIRE(sum.present == residual.present);
    DS_REQUIRE(!sum || (sum.numel() == R * C && sum.dtype == x.dtype && residual.numel() == R * C &&
                        residual.dtype == x.dtype));
  }
  void ref() const;
  void cpu() const;
};

struct LayerNormBackward {
  static constexpr const char* name = "layer_norm_backward";
  Tensor dx, dweight, dbias;
  Tensor dy;
  Optional dsum;
  Tensor s, mean, rstd, weight;
  bool accumulate;

  void visit(auto& v) { v(dx, dweight, dbias, dy, dsum, s, mean, rstd, weight, accumulate); }
  void check() const {
    int64_t R = s.rows(), C = s.dim(-1);
    DS_REQUIRE(dx.numel() == R * C && dx.dtype == s.dtype && dy.numel() == R * C && dy.dtype == s.dtype);
    DS_REQUIRE(!dsum || (dsum.numel() == R * C && dsum.dtype == s.dtype));
    DS_REQUIRE(mean.numel() == R && rstd.numel() == R && mean.dtype == rstd.dtype);
    DS_REQUIRE(weight.numel() == C && (weight.dtype == s.dtype || weight.dtype == DType::f32));
    DS_REQUIRE(dweight.numel() == C && dbias.numel() == C && dweight.dtype == dbias.dtype);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(LayerNorm, layer_norm)
DS_CPU_KERNEL(LayerNormBackward, layer_norm_backward)

}  // namespace ds
