// Bound by memory: a row is read once and written once where it fits into registers (rows.cuh).
#include "rms_norm.h"

#include "../common/dispatch.h"
#include "rows.cuh"

namespace ds::cuda {
namespace {

template <class T, class W>
struct Forward {
  T* y;
  float* rstd;
  T* sum;
  const T *x, *residual;
  const W* weight;
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
    float squares[1] = {0};
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
      for (int k = 0; k < N; ++k) squares[0] += to_f32(pack.at[k]) * to_f32(pack.at[k]);
    });
    row_sum(squares);
    float rstd = 1.0f / sqrtf(squares[0] / float(op.C) + op.eps);
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> pack = s.at(i, c);
      Pack<W, N> weight = load<N>(op.weight + c);
#pragma unroll
      for (int k = 0; k < N; ++k) pack.at[k] = from_f32<T>(to_f32(pack.at[k]) * rstd * to_f32(weight.at[k]));
      store(y + c, pack);
    });
    if (threadIdx.x == 0) op.rstd[r] = rstd;
  }
}

template <class T, class W>
struct BackwardRows {
  T* dx;
  const T *dy, *dsum, *s;
  const float* rstd;
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
    float rstd = op.rstd[r];
    float total[1] = {0};  // of g n
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> d = dy.at(i, c), z = s.at(i, c);
      Pack<W, N> weight = load<N>(op.weight + c);
#pragma unroll
      for (int k = 0; k < N; ++k) total[0] += to_f32(d.at[k]) * to_f32(weight.at[k]) * (to_f32(z.at[k]) * rstd);
    });
    row_sum(total);
    float mean_gn = total[0] / float(op.C);
    for_packs<Cut>(op.C, [&](int i, auto c) {
      Pack<T, N> d = dy.at(i, c), z = s.at(i, c);
      Pack<W, N> weight = load<N>(op.weight + c);
      Pack<T, N> dsum{};
      if (dsum_row) dsum = load<N>(dsum_row + c);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        float dx = rstd * (to_f32(d.at[k]) * to_f32(weight.at[k]) - to_f32(z.at[k]) * rstd * mean_gn);
        d.at[k] = from_f32<T>(dsum_row ? dx + to_f32(dsum.at[k]) : dx);
      }
      store(dx_row + c, d);
    });
  }
}

// What a row adds to the gradient of the weight in one column.
template <class T>
struct WeightTerms {
  static constexpr int kSums = 1;
  const T *dy, *s;
  const float* rstd;

  __device__ __forceinline__ void add(int64_t r, int64_t at, float (&sums)[kSums]) const {
    sums[0] += to_f32(dy[at]) * (to_f32(s[at]) * rstd[r]);
  }
};

}  // namespace

void rms_norm(const RmsNorm& op, CudaContext& context) {
  int64_t R = op.rstd.numel(), C = op.weight.numel();
  bool aligned = aligned_16(op.y.data, op.sum.data, op.x.data, op.residual.data, op.weight.data);
  dispatch_rows(op.x.dtype, op.weight.dtype, [&]<class T, class W>() {
    Forward<T, W> arguments{op.y.as<T>(),
                            op.rstd.as<float>(),
                            op.sum.as<T>(),
                            op.x.as<const T>(),
                            op.residual.as<const T>(),
                            op.weight.as<const W>(),
                            R,
                            C,
                            float(op.eps)};
    for_rows<T>(R, C, aligned, context, [&]<class Cut>(dim3 grid, dim3 block) {
      DS_LAUNCH((forward<T, W, Cut>), grid, block, 0, context, arguments);
    });
  });
}

void rms_norm_backward(const RmsNormBackward& op, CudaContext& context) {
  int64_t R = op.rstd.numel(), C = op.weight.numel();
  const float* rstd = op.rstd.as<const float>();
  // The weight's gradient first: dx may overwrite dy.
  float* partial = context.scratch<float>(slabs_of(R) * C);
  dispatch_float(op.s.dtype, [&]<class T>() {
    WeightTerms<T> terms{op.dy.as<const T>(), op.s.as<const T>(), rstd};
    dispatch_float(op.dweight.dtype, [&]<class G>() {
      sum_columns(terms, Targets<G, 1>{{op.dweight.as<G>()}}, R, C, op.accumulate, partial, context);
    });
  });
  bool aligned = aligned_16(op.dx.data, op.dy.data, op.dsum.data, op.s.data, op.weight.data);
  dispatch_rows(op.s.dtype, op.weight.dtype, [&]<class T, class W>() {
    BackwardRows<T, W> arguments{op.dx.as<T>(),
                                 op.dy.as<const T>(),
                                 op.dsum.as<const T>(),
                                 op.s.as<const T>(),
                                 rstd,
                                 op.weight.as<const W>(),
                                 R,
                                 C};
    for_rows<T>(R, C, aligned, context, [&]<class Cut>(dim3 grid, dim3 block) {
      DS_LAUNCH((backward_rows<T, W, Cut>), grid, block, 0, context, arguments);
    });
  });
}

DS_CUDA_KERNEL(RmsNorm, rms_norm)
DS_CUDA_KERNEL(RmsNormBackward, rms_norm_backward)

}  // namespace ds::cuda
