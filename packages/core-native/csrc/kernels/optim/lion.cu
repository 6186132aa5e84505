// Bound by memory: 12 bytes read and 8 written an element in f32, 2 more for a 16-bit copy.
#include "lion.h"

#include "../../cuda/types.cuh"
#include "copies.cuh"

namespace ds::cuda {
namespace {

template <class G, class C>
struct Arguments {
  float *p, *m;
  C* copy;
  const G* grad;
  int64_t n;
  float grad_scale, decay, beta1, rest1, beta2, rest2, step;
};

template <int N, class G, class C>
__global__ void __launch_bounds__(kOptimizerBlock) sweep(Arguments<G, C> a) {
  int64_t stride = int64_t(gridDim.x) * kOptimizerBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kOptimizerBlock + threadIdx.x) * N; i < a.n; i += stride) {
    Pack<float, N> p = load<N>(a.p + i), m = load<N>(a.m + i);
    Pack<G, N> grad = load<N>(a.grad + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float g = to_f32(grad.at[k]) * a.grad_scale, c = fmaf(a.beta1, m.at[k], a.rest1 * g);
      float sign = c > 0.0f ? 1.0f : c < 0.0f ? -1.0f : c;  // a zero and a NaN are their own signs
      p.at[k] = fmaf(a.step, sign, p.at[k] * a.decay);
      m.at[k] = fmaf(a.beta2, m.at[k], a.rest2 * g);
    }
    store(a.p + i, p);
    store(a.m + i, m);
    store_copy(a.copy, i, p);
  }
}

}  // namespace

void lion(const Lion& op, CudaContext& context) {
  bool aligned = aligned_16(op.p.data, op.m.data, op.copy.data, op.grad.data);
  dispatch_float(op.grad.dtype, [&]<class G>() {
    dispatch_copy(op.copy, [&]<class C>(C* copy) {
      in_packs<float>(op.p.numel(), aligned, [&]<int N>(int64_t at, int64_t n) {
        Arguments<G, C> arguments{op.p.as<float>() + at,
                                  op.m.as<float>() + at,
                                  copy_at(copy, at),
                                  op.grad.as<const G>() + at,
                                  n,
                                  float(op.grad_scale),
                                  float(1 - op.lr * op.weight_decay),
                                  float(op.beta1),
                                  float(1 - op.beta1),
                                  float(op.beta2),
                                  float(1 - op.beta2),
                                  float(-op.lr)};
        DS_LAUNCH((sweep<N, G, C>), strided_blocks(n, kOptimizerBlock * N, context), kOptimizerBlock, 0, context,
                  arguments);
      });
    });
  });
}

DS_CUDA_KERNEL(Lion, lion)

}  // namespace ds::cuda
