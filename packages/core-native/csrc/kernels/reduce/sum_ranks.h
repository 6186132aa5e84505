// sum_ranks: out = scale * (source[0] + source[1] + ... + source[N-1]), the addition of every reducing collective.
// shapes   source[j], out [n]: the same piece of the tensor as each of the N ranks holds it
// dtypes   sources one of f32 bf16 f16 f64; out that of the sources, or f32 for bf16 and f16
// alias    out may be one of the sources
// exact    summed from rank 0 up in f32 (f64 for f64), scaled, then rounded once: the same bits wherever a piece begins
//          or ends, so results depend on neither chunks nor bucket sizes. With `accumulate`, out = out + that, in f32
//          before the one rounding.
// limits   N >= 1, at most 256 on a GPU, n >= 0
// Called by the collectives, not from JavaScript: fields are what they have at hand.
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/cpu_isa.h"

namespace ds {

struct SumRanks {
  static constexpr const char* name = "sum_ranks";
  static constexpr int kMaxOnGpu = 256;
  const void* const* sources;
  int ranks;
  DType dtype;
  void* out;
  DType out_dtype;
  int64_t n;
  double scale;
  bool accumulate;
  bool stream;  // write past the caches: for an out that is larger than they are and not among the sources (CPU)

  void cpu() const;
};

DS_CPU_KERNEL(SumRanks, sum_ranks)

}  // namespace ds
