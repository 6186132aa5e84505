// fill_normal: y[i] = mean + std * z(seed, offset + i), where z is the standard normal number of that counter.
// shapes   y [N]                                     dtypes  any float
// exact    an element's value depends on seed and offset + i alone: a rank can draw its own piece of a parameter
// limits   N >= 0, offset >= 0
// source   Box & Muller 1958 over Philox4x32-10 (Salmon et al. 2011); elements 2k and 2k + 1 share counter k
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/cpu_isa.h"

namespace ds {

struct FillNormal {
  static constexpr const char* name = "fill_normal";
  Tensor y;
  double mean, std;
  int64_t seed, offset;

  void visit(auto& v) { v(y, mean, std, seed, offset); }
  void check() const {
    DS_REQUIRE(y.dtype != DType::i32 && y.dtype != DType::u8);
    DS_REQUIRE(offset >= 0);
  }
  void ref() const;
  void cpu() const;
};

// The number of element `i`.
double standard_normal(uint64_t seed, uint64_t i);

DS_CPU_KERNEL(FillNormal, fill_normal)

}  // namespace ds
