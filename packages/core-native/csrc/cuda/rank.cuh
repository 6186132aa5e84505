// The order of argmax: the first of the largest elements, as a maximum of numbers.
#pragma once
#include "reduce.cuh"

namespace ds::cuda {

struct Largest {
  static constexpr uint64_t kNeutral = 0;
  __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

// A number that grows with x, and falls with its column where x are equal: the largest one is argmax's answer. NaN is
// above infinity and equal to every NaN; -0 is 0.
__device__ __forceinline__ uint64_t rank_of(float x, int64_t column) {
  uint32_t bits = __float_as_uint(x + 0.0f);
  uint32_t order = x != x ? UINT32_MAX : bits >> 31 ? ~bits : bits | 0x80000000u;
  return uint64_t(order) << 32 | ~uint32_t(column);
}
__device__ __forceinline__ int32_t column_of(uint64_t rank) { return int32_t(~uint32_t(rank)); }

}  // namespace ds::cuda
