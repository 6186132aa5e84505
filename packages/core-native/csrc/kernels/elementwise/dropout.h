// dropout: y = x * keep / (1 - p) (+ residual). Its backward is the same op on dy, without the residual.
//   keep[i] = (word >> 8) / 2^24 >= p, with word = Philox4x32-10(key = seed, counter = offset + i / 4)[i % 4]
// shapes: y, x, residual of one size; i counts the elements of the tensors as passed, so a view starts at 0 again
// dtypes: one of f32, bf16, f16 (f64 on ref); arithmetic in f32, rounded once
// alias: y may be x or residual (the same bytes)
// saves: nothing; (seed, offset) makes the mask again. A call uses ceil(n / 4) counters: the next one may start behind.
// exact: the mask is the same on every device, for any number of threads and any dtype
// limits: 0 <= p < 1; with p = 0 no numbers are drawn and y = x (+ residual); a dropped infinity or NaN becomes 0
// source: Srivastava et al. 2014, sec. 4, in the inverted form
#pragma once
#include <cmath>

#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct Dropout {
  static constexpr const char* name = "dropout";
  Tensor y, x;
  Optional residual;
  double p;
  int64_t seed, offset;

  void visit(auto& v) { v(y, x, residual, p, seed, offset); }
  void check() const {
    DS_REQUIRE(y.numel() == x.numel() && y.dtype == x.dtype && is_float(x.dtype));
    DS_REQUIRE(!residual || (residual.numel() == x.numel() && residual.dtype == x.dtype));
    DS_REQUIRE_SAME_OR_APART(y, x);
    DS_REQUIRE_SAME_OR_APART(y, residual);
    DS_REQUIRE(p >= 0 && p < 1 && seed >= 0 && offset >= 0);
  }
  // keep = (word >> 8) >= threshold
  uint32_t threshold() const { return uint32_t(std::ceil(p * 0x1p24)); }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(Dropout, dropout)

}  // namespace ds
