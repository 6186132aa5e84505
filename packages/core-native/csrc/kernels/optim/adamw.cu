// Bound by memory: 24 bytes an element for p, m and v, beside the gradient and the copy. The f32 tensors go by 16 bytes
// a thread, 16-bit ones by 8, so that a warp's accesses touch whole lines without gaps.
#include "adamw.h"

#include <type_traits>

#include "../../cuda/types.cuh"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;

// Made in f64 and rounded once, as on the CPU.
struct Factors {
  float grad_scale, decay, l2, beta1, rest1, beta2, rest2, step, root, eps;
  bool decoupled;

  explicit Factors(const AdamW& op)
      : grad_scale(float(op.grad_scale)),
        decay(float(1 - op.lr * op.weight_decay)),
        l2(float(op.weight_decay)),
        beta1(float(op.beta1)),
        rest1(float(1 - op.beta1)),
        beta2(float(op.beta2)),
        rest2(float(1 - op.beta2)),
        step(float(-op.lr / op.bias_correction1)),
        root(float(1 / std::sqrt(op.bias_correction2))),
        eps(float(op.eps)),
        decoupled(op.decoupled) {}
};

// The contract's operations in its order. Each product that is added to something is so within fmaf: nothing is left
// for the compiler to contract, and the bits are the CPU's.
__device__ __forceinline__ void advance(const Factors& f, float g, float& p, float& m, float& v) {
  g *= f.grad_scale;
  if (!f.decoupled) g = fmaf(f.l2, p, g);
  m = fmaf(f.beta1, m, f.rest1 * g);
  v = fmaf(f.beta2, v, (f.rest2 * g) * g);
  if (f.decoupled) p *= f.decay;
  p = fmaf(f.step, m / fmaf(sqrtf(v), f.root, f.eps), p);
}

// Elements of a tensor that may be absent (void).
template <class C, int N>
using CopyPack = Pack<std::conditional_t<std::is_void_v<C>, char, C>, N>;

// N elements from i on. The copy may be the gradient: it is written after that was read.
template <int N, class G, class C>
__device__ __forceinline__ void update(const Factors& f, float* p, float* m, float* v, const G* grad, C* copy) {
  auto ps = load<N>(p), ms = load<N>(m), vs = load<N>(v);
  auto gs = load<N>(grad);
  CopyPack<C, N> cs;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    advance(f, to_f32(gs.at[k]), ps.at[k], ms.at[k], vs.at[k]);
    if constexpr (!std::is_void_v<C>) cs.at[k] = from_f32<C>(ps.at[k]);
  }
  store(p, ps);
  store(m, ms);
  store(v, vs);
  if constexpr (!std::is_void_v<C>) store(copy, cs);
}

template <int N, class G, class C>
__global__ void __launch_bounds__(kBlock, 4)
    sweep(int64_t n, Factors f, float* p, float* m, float* v, const G* grad, C* copy) {
  auto copy_at = [&](int64_t i) {
    if constexpr (std::is_void_v<C>)
      return copy;
    else
      return copy + i;
  };
  int64_t stride = int64_t(gridDim.x) * kBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * N; i < n; i += stride) {
    if (i + N <= n)
      update<N>(f, p + i, m + i, v + i, grad + i, copy_at(i));
    else
      for (int64_t j = i; j < n; ++j) update<1>(f, p + j, m + j, v + j, grad + j, copy_at(j));
  }
}

template <class G, class C>
void launch_sweep(const AdamW& op, CudaContext& context, C* copy) {
  int64_t n = op.p.numel();
  if (n == 0) return;
  auto launch_by = [&]<int N>() {
    DS_LAUNCH((sweep<N, G, C>), strided_blocks(n, kBlock * N, context), kBlock, 0, context, n, Factors(op),
              op.p.as<float>(), op.m.as<float>(), op.v.as<float>(), op.grad.as<const G>(), copy);
  };
  aligned_16(op.p.data, op.m.data, op.v.data, op.grad.data, op.copy.data) ? launch_by.template operator()<4>()
                                                                          : launch_by.template operator()<1>();
}

}  // namespace

void adamw(const AdamW& op, CudaContext& context) {
  dispatch_float(op.grad.dtype, [&]<class G>() {
    if (!op.copy) return launch_sweep<G>(op, context, static_cast<void*>(nullptr));
    dispatch_float(op.copy.dtype, [&]<class C>() { launch_sweep<G>(op, context, op.copy.as<C>()); });
  });
}

DS_CUDA_KERNEL(AdamW, adamw)

}  // namespace ds::cuda
