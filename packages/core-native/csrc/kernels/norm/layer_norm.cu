// Bound by memory: a row is read once and written once where it fits into registers (rows.cuh).
#include "layer_norm.h"

#include "../common/dispatch.h"
#include "rows.cuh"

namespace ds::cuda {
namespace {

template <class T, class W>
struct Forward {
  T* y;
  float *mean, *rstd;
  T* sum;
  const T *x, *residual;
  const W *weight, *bias;
  int64_t R, C;
  float eps;
};

template <class T, class W, class Cut>
__global__ void __launch_bounds__(kMaxBlock) forward(Forward<T, W> op) {
  constexpr int N = Cut::elements;
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < op.R; r += int64_t(gridDim.x) * blockDim.y) {
    // Without registers the sum is read back from memory, each element by the thread that wrote it.
    const T *x = op.x + r * op.C, *residual_row = op.sum ? op.residual + r * op.C : nullptr;
    T *y = op.y + r * op.C, *sum = op.sum ? op.sum + r * op.C : nullptr;
    Share<T, Cut> s(sum && !Cut::cached ? sum : x, op.C);
    float total[1] = {0};
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> pack = sum && !Cut::cached ? load<N>(x + c) : s.at(i, c);
      if (sum) {
        Pack<T, N> residual = load<N>(residual_row + c);
#pragma unroll
        for (int k = 0; k < N; ++k) pack.at[k] = from_f32<T>(to_f32(pack.at[k]) + to_f32(residual.at[k]));
        store(sum + c, pack);
        s.set(i, pack);
      }
#pragma unroll
      for (int k = 0; k < N; ++k) total[0] += to_f32(pack.at[k]);
    });
    row_sum(total);
    float mean = total[0] / float(op.C);
    // Two passes, because E[s^2] - mean^2 cancels when the mean is large.
    float squares[1] = {0};
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> pack = s.at(i, c);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        float d = to_f32(pack.at[k]) - mean;
        squares[0] += d * d;
      }
    });
    row_sum(squares);
    float rstd = 1.0f / sqrtf(squares[0] / float(op.C) + op.eps);
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> pack = s.at(i, c);
      Pack<W, N> weight = load<N>(op.weight + c), bias = load<N>(op.bias + c);
#pragma unroll
      for (int k = 0; k < N; ++k)
        pack.at[k] = from_f32<T>((to_f32(pack.at[k]) - mean) * rstd * to_f32(weight.at[k]) + to_f32(bias.at[k]));
      store(y + c, pack);
    });
    if (threadIdx.x == 0) {
      op.mean[r] = mean;
      op.rstd[r] = rstd;
    }
  }
}

template <class T, class W>
struct BackwardRows {
  T* dx;
  const T *dy, *dsum, *s;
  const float *mean, *rstd;
  const W* weight;
  int64_t R, C;
};

template <class T, class W, class Cut>
__global__ void __launch_bounds__(kMaxBlock) backward_rows(BackwardRows<T, W> op) {
  constexpr int N = Cut::elements;
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < op.R; r += int64_t(gridDim.x) * blockDim.y) {
    Share<T, Cut> dy(op.dy + r * op.C, op.C), s(op.s + r * op.C, op.C);
    const T* dsum_row = op.dsum ? op.dsum + r * op.C : nullptr;
    T* dx_row = op.dx + r * op.C;
    float mean = op.mean[r], rstd = op.rstd[r];
    float totals[2] = {0, 0};  // of g and of g n
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> d = dy.at(i, c), z = s.at(i, c);
      Pack<W, N> weight = load<N>(op.weight + c);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        float g = to_f32(d.at[k]) * to_f32(weight.at[k]);
        totals[0] += g;
        totals[1] += g * ((to_f32(z.at[k]) - mean) * rstd);
      }
    });
    row_sum(totals);
    float mean_g = totals[0] / float(op.C), mean_gn = totals[1] / float(op.C);
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> d = dy.at(i, c), z = s.at(i, c);
      Pack<W, N> weight = load<N>(op.weight + c);
      Pack<T, N> dsum{};
      if (dsum_row) dsum = load<N>(dsum_row + c);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        float g = to_f32(d.at[k]) * to_f32(weight.at[k]), n = (to_f32(z.at[k]) - mean) * rstd;
        float dx = rstd * (g - mean_g - n * mean_gn);
        d.at[k] = from_f32<T>(dsum_row ? dx + to_f32(dsum.at[k]) : dx);
      }
      store(dx_row + c, d);
    });
  }
}

// What a row adds to the gradients of weight and bias in one column.
template <class T>
struct WeightTerms {
  static constexpr int kSums = 2;
  const T *dy, *s;
  const float *mean, *rstd;

  __device__ __forceinline__ void add(int64_t r, int64_t at, float (&sums)[kSums]) const {
    float g = to_f32(dy[at]);
    sums[0] += g * ((to_f32(s[at]) - mean[r]) * rstd[r]);
    sums[1] += g;
  }
};

}  // namespace

void layer_norm(const LayerNorm& op, CudaContext& context) {
  int64_t R = op.mean.numel(), C = op.weight.numel();
  bool aligned = aligned_16(op.y.data, op.sum.data, op.x.data, op.residual.data, op.weight.data, op.bias.data);
  dispatch_rows(op.x.dtype, op.weight.dtype, [&]<class T, class W>() {
    Forward<T, W> arguments{op.y.as<T>(),
                            op.mean.as<float>(),
                            op.rstd.as<float>(),
                            op.sum.as<T>(),
                            op.x.as<const T>(),
                            op.residual.as<const T>(),
                            op.weight.as<const W>(),
                            op.bias.as<const W>(),
                            R,
                            C,
                            float(op.eps)};
    for_rows<T>(R, C, aligned, context, [&]<class Cut>(dim3 grid, dim3 block) {
      DS_LAUNCH((forward<T, W, Cut>), grid, block, 0, context, arguments);
    });
  });
}

void layer_norm_backward(const LayerNormBackward& op, CudaContext& context) {
  int64_t R = op.mean.numel(), C = op.weight.numel();
  const float *mean = op.mean.as<const float>(), *rstd = op.rstd.as<const float>();
  // The weights' gradients first: dx may overwrite dy.
  float* partial = context.scratch<float>(2 * slabs_of(R) * C);
  dispatch_float(op.s.dtype, [&]<class T>() {
    WeightTerms<T> terms{op.dy.as<const T>(), op.s.as<const T>(), mean, rstd};
    dispatch_float(op.dweight.dtype, [&]<class G>() {
      Targets<G, 2> targets{{op.dweight.as<G>(), op.dbias.as<G>()}};
      sum_columns(terms, targets, R, C, op.accumulate, partial, context);
    });
  });
  bool aligned = aligned_16(op.dx.data, op.dy.data, op.dsum.data, op.s.data, op.weight.data);
  dispatch_rows(op.s.dtype, op.weight.dtype, [&]<class T, class W>() {
    BackwardRows<T, W> arguments{op.dx.as<T>(),
                                 op.dy.as<const T>(),
                                 op.dsum.as<const T>(),
                                 op.s.as<const T>(),
                                 mean,
                                 rstd,
                                 op.weight.as<const W>(),
                                 R,
                                 C};
    for_rows<T>(R, C, aligned, context, [&]<class Cut>(dim3 grid, dim3 block) {
      DS_LAUNCH((backward_rows<T, W, Cut>), grid, block, 0, context, arguments);
    });
  });
}

DS_CUDA_KERNEL(LayerNorm, layer_norm)
DS_CUDA_KERNEL(LayerNormBackward, layer_norm_backward)

}  // namespace ds::cuda
