// Reductions of a whole tensor to one number.
//
// sum: out = sum of x. square_sum: out = sum of x^2, both added to what is there when `accumulate`.
// nonfinite_index: out = index of the first element that is an infinity or a NaN, or -1.
// shapes: out [1] (any one element); x any
// dtypes: x f32, bf16, f16 (f64 on ref); out f64: a sum of 10^9 squares needs it, and an index needs 53 bits
// exact: blocks of 4096 elements, then the blocks in order, all in f64: the same bits for any number of threads. The
//   unit of this promise is the tensor passed: other cuts of the same data may differ in the last bit.
// limits: infinities and NaN reach the result; squares do not overflow (f64); an empty x sums to 0 and has no index
//
// argmax: out[r] = the column of the largest x[r, v]; the first one of equals; a NaN counts as the largest.
// shapes: x [R, V], out [R] i32. limits: V >= 1
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct Sum {
  static constexpr const char* name = "sum";
  Tensor out, x;
  bool accumulate;

  void visit(auto& v) { v(out, x, accumulate); }
  void check() const { DS_REQUIRE(out.numel() == 1 && out.dtype == DType::f64 && is_float(x.dtype)); }
  void ref() const;
  void cpu() const;
};

struct SquareSum {
  static constexpr const char* name = "square_sum";
  Tensor out, x;
  bool accumulate;

  void visit(auto& v) { v(out, x, accumulate); }
  void check() const { DS_REQUIRE(out.numel() == 1 && out.dtype == DType::f64 && is_float(x.dtype)); }
  void ref() const;
  void cpu() const;
};

struct NonfiniteIndex {
  static constexpr const char* name = "nonfinite_index";
  Tensor out, x;

  void visit(auto& v) { v(out, x); }
  void check() const { DS_REQUIRE(out.numel() == 1 && out.dtype == DType::f64 && is_float(x.dtype)); }
  void ref() const;
  void cpu() const;
};

struct Argmax {
  static constexpr const char* name = "argmax";
  Tensor out, x;

  void visit(auto& v) { v(out, x); }
  void check() const {
    DS_REQUIRE(x.rank >= 1 && x.dim(-1) >= 1 && x.dim(-1) <= INT32_MAX && is_float(x.dtype));
    DS_REQUIRE(out.numel() == x.rows() && out.dtype == DType::i32);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(Sum, sum)
DS_CPU_KERNEL(SquareSum, square_sum)
DS_CPU_KERNEL(NonfiniteIndex, nonfinite_index)
DS_CPU_KERNEL(Argmax, argmax)

}  // namespace ds
