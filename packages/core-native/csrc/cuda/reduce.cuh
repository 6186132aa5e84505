// Sums and maxima over a warp or a block. The order is fixed by the number of threads, and every thread gets the same
// bits.
#pragma once
#include "launch.cuh"

namespace ds::cuda {

struct Sum {
  static constexpr int kNeutral = 0;
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  static constexpr float kNeutral = -INFINITY;
  // A NaN wins, unlike in fmaxf.
  __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

// All 32 lanes must call it. T: a number of 4 or 8 bytes that `Combine` takes.
template <class Combine = Sum, class T>
__device__ __forceinline__ T warp_reduce(T x, Combine combine = {}) {
#pragma unroll
  for (int flip = kWarp / 2; flip > 0; flip /= 2) x = combine(x, __shfl_xor_sync(kAllLanes, x, flip));
  return x;
}

// All threads of the block must call it; `rank` is the thread's number in the block and `threads` their number. Several
// values (N) at the price of one barrier.
template <class Combine, class T, int N>
__device__ __forceinline__ void block_reduce(T (&x)[N], int rank, int threads, Combine combine = {}) {
  DS_SHARED(T[kWarp * N], partial);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = warp_reduce(x[i], combine);
  if (threads == kWarp) return;
  int warp = rank / kWarp, lane = rank % kWarp, warps = threads / kWarp;
  if (lane == 0) {
#pragma unroll
    for (int i = 0; i < N; ++i) partial[warp * N + i] = x[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = warp_reduce(lane < warps ? partial[lane * N + i] : T(Combine::kNeutral), combine);
  __syncthreads();  // the next call writes `partial` again
}

template <class Combine = Sum, class T>
__device__ __forceinline__ T block_reduce(T x, int rank, int threads, Combine combine = {}) {
  T one[1] = {x};
  block_reduce(one, rank, threads, combine);
  return one[0];
}

}  // namespace ds::cuda
