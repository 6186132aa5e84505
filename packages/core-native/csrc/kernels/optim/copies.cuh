// What the optimizers' kernels share: the rounded copy of the weights, which an op may have or not.
#pragma once
#include "../../cuda/types.cuh"
#include "../common/dispatch.h"

namespace ds::cuda {

constexpr int kOptimizerBlock = 256;

// In the place of the copy's dtype.
struct NoCopy {};

// Calls fn(pointer to the copy), of type NoCopy* where there is none.
template <class F>
void dispatch_copy(const Optional& copy, F&& fn) {
  if (!copy) return fn(static_cast<NoCopy*>(nullptr));
  dispatch_float(copy.dtype, [&]<class C>() { fn(copy.as<C>()); });
}

template <class C>
C* copy_at(C* copy, int64_t i) {
  return copy ? copy + i : nullptr;
}

template <int N, class C>
__device__ __forceinline__ void store_copy(C* copy, int64_t i, const Pack<float, N>& p) {
  if constexpr (!std::is_same_v<C, NoCopy>) {
    Pack<C, N> rounded;
#pragma unroll
    for (int k = 0; k < N; ++k) rounded.at[k] = from_f32<C>(p.at[k]);
    store(copy + i, rounded);
  }
}

}  // namespace ds::cuda
