// Bound by memory: 3 accesses an element forward, 5 backward. For 16-bit types the exponential and the quotient are the
// approximate ones, whose error of a few 2^-22 is far below their rounding.
#include "silu_gate.h"

#include "../../cuda/types.cuh"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;

template <bool kFast>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (kFast) return __fdividef(1.0f, 1.0f + __expf(-x));
  return 1.0f / (1.0f + expf(-x));
}

// N elements an access. A thread reads its elements before it writes them: an output may be an input.
template <int N, class T>
__global__ void __launch_bounds__(kBlock) forward(int64_t n, T* y, const T* gate, const T* up) {
  constexpr bool kFast = sizeof(T) == 2;
  int64_t stride = int64_t(gridDim.x) * kBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * N; i < n; i += stride) {
    Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float x = to_f32(g.at[k]);
      g.at[k] = from_f32<T>(x * sigmoid<kFast>(x) * to_f32(u.at[k]));
    }
    store(y + i, g);
  }
}

template <int N, class T>
__global__ void __launch_bounds__(kBlock)
    backward(int64_t n, T* dgate, T* dup, const T* dy, const T* gate, const T* up) {
  constexpr bool kFast = sizeof(T) == 2;
  int64_t stride = int64_t(gridDim.x) * kBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * N; i < n; i += stride) {
    Pack<T, N> d = load<N>(dy + i), g = load<N>(gate + i), u = load<N>(up + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float x = to_f32(g.at[k]), dk = to_f32(d.at[k]), s = sigmoid<kFast>(x), silu = x * s;
      g.at[k] = from_f32<T>(dk * to_f32(u.at[k]) * (s + silu * (1.0f - s)));
      u.at[k] = from_f32<T>(dk * silu);
    }
    store(dgate + i, g);
    store(dup + i, u);
  }
}

}  // namespace

void silu_gate(const SiluGate& op, CudaContext& context) {
  dispatch_float(op.gate.dtype, [&]<class T>() {
    bool aligned = aligned_16(op.y.data, op.gate.data, op.up.data);
    in_packs<T>(op.y.numel(), aligned, [&]<int N>(int64_t at, int64_t n) {
      DS_LAUNCH((forward<N, T>), strided_blocks(n, kBlock * N, context), kBlock, 0, context, n, op.y.as<T>() + at,
                op.gate.as<const T>() + at, op.up.as<const T>() + at);
    });
  });
}

void silu_gate_backward(const SiluGateBackward& op, CudaContext& context) {
  dispatch_float(op.gate.dtype, [&]<class T>() {
    bool aligned = aligned_16(op.dgate.data, op.dup.data, op.dy.data, op.gate.data, op.up.data);
    in_packs<T>(op.dy.numel(), aligned, [&]<int N>(int64_t at, int64_t n) {
      DS_LAUNCH((backward<N, T>), strided_blocks(n, kBlock * N, context), kBlock, 0, context, n, op.dgate.as<T>() + at,
                op.dup.as<T>() + at, op.dy.as<const T>() + at, op.gate.as<const T>() + at, op.up.as<const T>() + at);
    });
  });
}

DS_CUDA_KERNEL(SiluGate, silu_gate)
DS_CUDA_KERNEL(SiluGateBackward, silu_gate_backward)

}  // namespace ds::cuda
