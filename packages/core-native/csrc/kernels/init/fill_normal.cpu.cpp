#include "fill_normal.h"
#include "../../runtime/pool.h"
#include "../common/ref.h"

namespace ds::DS_ISA {

// Runs once per model, so the plain computation will do: cut over the pool, no vectors.
void fill_normal(const FillNormal& op) {
  constexpr int64_t kElementsPerChunk = 4096;
  parallel_ranges(op.y.numel(), kElementsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      put(op.y, i, op.mean + op.std * standard_normal(uint64_t(op.seed), uint64_t(op.offset + i)));
  });
}

}  // namespace ds::DS_ISA
