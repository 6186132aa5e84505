// Bound by memory, both of them: lamb_moments reads 16 bytes and writes 8 an element in f32, lamb_step 12 and 4, and 2
// for a 16-bit copy. The norms are summed by blocks of elements and then over the blocks, in f64.
#include "lamb.h"

#include "../../cuda/reduce.cuh"
#include "../../cuda/types.cuh"
#include "copies.cuh"
#include "lamb_trust.h"

namespace ds::cuda {
namespace {

constexpr int kBlockElements = 4096;  // their squares are summed by one block of threads
constexpr int kSums = 2;              // of the squares of weights, and of directions

__device__ __forceinline__ float direction(float p, float m, float v, float eps, float weight_decay) {
  return fmaf(weight_decay, p, m / (sqrtf(v) + eps));
}

template <class G>
struct Moments {
  float *m, *v;
  const float* p;
  const G* grad;
  int64_t n;
  float beta1, rest1, beta2, rest2, eps, weight_decay, grad_scale;

  template <int N>
  __device__ __forceinline__ void advance(int64_t i, double (&sums)[kSums]) const {
    Pack<float, N> first = load<N>(m + i), second = load<N>(v + i), weight = load<N>(p + i);
    Pack<G, N> gradient = load<N>(grad + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float g = to_f32(gradient.at[k]) * grad_scale;
      first.at[k] = fmaf(beta1, first.at[k], rest1 * g);
      second.at[k] = fmaf(beta2, second.at[k], (rest2 * g) * g);
      double w = weight.at[k], u = direction(weight.at[k], first.at[k], second.at[k], eps, weight_decay);
      sums[0] += w * w;
      sums[1] += u * u;
    }
    store(m + i, first);
    store(v + i, second);
  }
};

template <int N, class G>
__global__ void __launch_bounds__(kOptimizerBlock) advance_moments(Moments<G> a, double* partial) {
  int64_t blocks = (a.n + kBlockElements - 1) / kBlockElements;
  for (int64_t b = blockIdx.x; b < blocks; b += gridDim.x) {
    double sums[kSums] = {};
#pragma unroll
    for (int j = 0; j < kBlockElements / (kOptimizerBlock * N); ++j) {
      int64_t i = b * kBlockElements + (int64_t(j) * kOptimizerBlock + threadIdx.x) * N;
      if (i + N <= a.n)
        a.template advance<N>(i, sums);
      else
        for (; i < a.n; ++i) a.template advance<1>(i, sums);
    }
    block_reduce<Sum>(sums, int(threadIdx.x), kOptimizerBlock);
    if (threadIdx.x == 0) store(partial + b * kSums, Pack<double, kSums>{{sums[0], sums[1]}});
  }
}

__global__ void __launch_bounds__(kOptimizerBlock)
    sum_blocks(const double* partial, int64_t blocks, double* squares, bool accumulate) {
  double sums[kSums] = {};
  for (int64_t b = threadIdx.x; b < blocks; b += kOptimizerBlock)
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] += partial[b * kSums + i];
  block_reduce<Sum>(sums, int(threadIdx.x), kOptimizerBlock);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int i = 0; i < kSums; ++i) squares[i] = accumulate ? squares[i] + sums[i] : sums[i];
}

template <class C>
struct Step {
  float* p;
  C* copy;
  const float *m, *v;
  const double* squares;
  int64_t n;
  double rate, lowest, highest;
  float eps, weight_decay;
};

template <int N, class C>
__global__ void __launch_bounds__(kOptimizerBlock) make_step(Step<C> a) {
  float step = float(-a.rate * lamb_trust(a.squares, a.lowest, a.highest));
  int64_t stride = int64_t(gridDim.x) * kOptimizerBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kOptimizerBlock + threadIdx.x) * N; i < a.n; i += stride) {
    Pack<float, N> p = load<N>(a.p + i), m = load<N>(a.m + i), v = load<N>(a.v + i);
#pragma unroll
    for (int k = 0; k < N; ++k)
      p.at[k] = fmaf(step, direction(p.at[k], m.at[k], v.at[k], a.eps, a.weight_decay), p.at[k]);
    store(a.p + i, p);
    store_copy(a.copy, i, p);
  }
}

}  // namespace

void lamb_moments(const LambMoments& op, CudaContext& context) {
  int64_t n = op.p.numel(), blocks = (n + kBlockElements - 1) / kBlockElements;
  double* partial = context.scratch<double>(blocks * kSums);
  bool aligned = aligned_16(op.m.data, op.v.data, op.p.data, op.grad.data);
  if (n)
    dispatch_float(op.grad.dtype, [&]<class G>() {
      Moments<G> arguments{
          op.m.as<float>(),       op.v.as<float>(),    op.p.as<const float>(), op.grad.as<const G>(), n,
          float(op.beta1),        float(1 - op.beta1), float(op.beta2),        float(1 - op.beta2),   float(op.eps),
          float(op.weight_decay), float(op.grad_scale)};
      unsigned grid = strided_blocks(blocks, 1, context);
      if (aligned)
        DS_LAUNCH((advance_moments<4, G>), grid, kOptimizerBlock, 0, context, arguments, partial);
      else
        DS_LAUNCH((advance_moments<1, G>), grid, kOptimizerBlock, 0, context, arguments, partial);
    });
  DS_LAUNCH(sum_blocks, 1, kOptimizerBlock, 0, context, partial, blocks, op.squares.as<double>(), op.accumulate);
}

void lamb_step(const LambStep& op, CudaContext& context) {
  bool aligned = aligned_16(op.p.data, op.copy.data, op.m.data, op.v.data);
  dispatch_copy(op.copy, [&]<class C>(C* copy) {
    in_packs<float>(op.p.numel(), aligned, [&]<int N>(int64_t at, int64_t n) {
      Step<C> arguments{op.p.as<float>() + at,
                        copy_at(copy, at),
                        op.m.as<const float>() + at,
                        op.v.as<const float>() + at,
                        op.squares.as<const double>(),
                        n,
                        op.rate,
                        op.min_coefficient,
                        op.max_coefficient,
                        float(op.eps),
                        float(op.weight_decay)};
      DS_LAUNCH((make_step<N, C>), strided_blocks(n, kOptimizerBlock * N, context), kOptimizerBlock, 0, context,
                arguments);
    });
  });
}

DS_CUDA_KERNEL(LambMoments, lamb_moments)
DS_CUDA_KERNEL(LambStep, lamb_step)

}  // namespace ds::cuda
