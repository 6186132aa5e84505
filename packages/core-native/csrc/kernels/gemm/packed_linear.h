// packed_linear: y = act(n W^T + bias) + residual with W a packed weight (packed_weight.h) and n = x, or its layer norm
// or
//   RMS norm: n = (x - mean(x)) rstd * weight + bias with rstd = 1 / sqrt(variance + eps), or x rstd * weight with
//   rstd = 1 / sqrt(mean(x^2) + eps), over the last dim.
// gated: y = act(gate) * up + residual; gate and up are the products (with their bias) with the two halves of W's rows.
// act: nothing, GELU in tanh form (BLOOM's constants), GELU by erf, ReLU, SiLU
// shapes: x [R, K]; W [N, K]; bias [N]; y, residual [R, N], [R, N/2] if gated; norm's weight, bias [K]
// dtypes: x f32, bf16 or f16 (f64 on ref); y that of x, or f32; residual that of y; bias and norm f32 (f64 on ref)
// rounding: a q8 or q4 weight meets n rounded to 8 bits: in a block of 32 columns with m the largest |n|, n becomes
//   m / 127 times the integer nearest to 127 n / m; below 1e-30 it is 0, and NaN where one is not finite. An output is
//   off by at most the sum over blocks of m / 254 * sum |w|. In f64 `ref` does not round: its result is the formula's
// exact: cpu: a row of y has the same bits in any batch, whatever R, the other rows and the number of threads: a sum
// goes
//   through k in order, fused multiply-adds, over blocks of 32 (whose sums are integers) in q8 and q4.
//   cuda: the same bits for the same call; sums are f32; a norm in front of a bf16 or f16 weight is rounded to that
//   dtype where x has it
// alias: y may be residual, and nothing else      limits: K >= 1, R and N >= 0
// source: a layer's products with what goes round them as one kernel: Aminabadi et al. 2022 (DeepSpeed-Inference), sec.
// III
//
// packed_argmax: out[r] = the column of the largest element of row r of n W^T: the first of equals, NaN the largest of
// all shapes: out [R] i32; limits: N >= 1, W not gated
#pragma once
#include "packed_weight.h"

namespace ds {

enum class Activation : int64_t { none = 0, gelu = 1, gelu_exact = 2, relu = 3, silu = 4 };
enum class NormKind : int64_t { none = 0, layer = 1, rms = 2 };

// What happens to the rows of x first.
struct RowNorm {
  int64_t kind_code;
  Optional weight, bias;
  double eps;

  void visit(auto& v) { v(kind_code, weight, bias, eps); }

  NormKind kind() const { return NormKind(kind_code); }
  bool fits(const Tensor& x) const {
    auto is_row = [&](const Tensor& t) {
      return t.numel() == x.dim(-1) && (t.dtype == DType::f32 || (t.dtype == DType::f64 && x.dtype == DType::f64));
    };
    if (kind_code < 0 || kind_code > 2 || (kind() != NormKind::none) != weight.present) return false;
    return (!weight || is_row(weight)) && (!bias || (kind() == NormKind::layer && is_row(bias)));
  }
};

// Below this the largest number of a block counts as 0: its inverse would overflow.
constexpr float kLeastMagnitude = 1e-30f;

struct PackedLinear {
  static constexpr const char* name = "packed_linear";
  Tensor y;
  Tensor x;
  PackedWeight weight;
  Optional bias, residual;
  RowNorm norm;
  int64_t activation_code;

  void visit(auto& v) { v(y, x, weight, bias, residual, norm, activation_code); }

  Activation activation() const { return Activation(activation_code); }
  void check() const {
    DS_REQUIRE(weight.fits() && x.dim(-1) == weight.columns && is_float(x.dtype));
    DS_REQUIRE(y.numel() == x.rows() * weight.outputs() && (y.dtype == x.dtype || y.dtype == DType::f32));
    DS_REQUIRE(!bias || (bias.numel() == weight.rows &&
                         (bias.dtype == DType::f32 || (bias.dtype == DType::f64 && x.dtype == DType::f64))));
    DS_REQUIRE(!residual || (residual.numel() == y.numel() && residual.dtype == y.dtype));
    DS_REQUIRE(norm.fits(x) && activation_code >= 0 && activation_code <= 4);
    DS_REQUIRE_APART(y, x);
    DS_REQUIRE_APART(y, weight.bytes);
    if (residual) DS_REQUIRE_SAME_OR_APART(y, residual);
  }
  void ref() const;
  void cpu() const;
};

struct PackedArgmax {
  static constexpr const char* name = "packed_argmax";
  Tensor out;
  Tensor x;
  PackedWeight weight;
  RowNorm norm;

  void visit(auto& v) { v(out, x, weight, norm); }
  void check() const {
    DS_REQUIRE(weight.fits() && !weight.gated && weight.rows >= 1 && weight.rows <= INT32_MAX);
    DS_REQUIRE(x.dim(-1) == weight.columns && is_float(x.dtype) && norm.fits(x));
    DS_REQUIRE(out.numel() == x.rows() && out.dtype == DType::i32);
    DS_REQUIRE_APART(out, x);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(PackedLinear, packed_linear)
DS_CPU_KERNEL(PackedArgmax, packed_argmax)

}  // namespace ds
