// One pass over memory where a row fits into the registers of its threads: a warp takes a row of up to 1024 columns, a
// block one of up to 16384. Other rows, and views that do not start at 16 bytes, are read again for each pass, one
// element an access. The weights' gradients are summed by slabs of rows and then over the slabs.
#include "layer_norm.h"

#include <algorithm>

#include "../../cuda/reduce.cuh"
#include "../../cuda/types.cuh"
#include "../common/dispatch.h"

namespace ds::cuda {
namespace {

constexpr int kMaxBlock = 512;
constexpr int kRowsByWarps = 4;  // rows of a block when a warp takes one

// How the threads of a row share its columns: thread i takes packs i, i + threads, ... of kElements columns each.
// kCached: packs that a thread holds in registers; 0 for rows of any length that are read again instead.
template <int kElements, int kCached>
struct Cut {
  static constexpr int elements = kElements, cached = kCached;
  using Column = std::conditional_t<kCached != 0, int, int64_t>;
};
// 128 bytes of a thread's registers for each tensor; for 16-bit types half of it.
template <class T>
using InRegisters = Cut<kPack<T>, 2 * int(sizeof(T))>;
using FromMemory = Cut<1, 0>;

// Calls body(i, c) for each pack of the thread: its i-th, from column c.
template <class Cut, class Body>
__device__ __forceinline__ void for_packs(int64_t C, Body&& body) {
  if constexpr (Cut::cached > 0) {
#pragma unroll
    for (int i = 0; i < Cut::cached; ++i) {
      int c = int(i * blockDim.x + threadIdx.x) * Cut::elements;
      if (c < int(C)) body(i, c);
    }
  } else {
    for (int64_t c = threadIdx.x; c < C; c += blockDim.x) body(0, c);
  }
}

// A thread's share of one row of one tensor.
template <class T, class Cut>
class Share {
 public:
  static constexpr int kElements = Cut::elements;

  __device__ Share(const T* row, int64_t C) : row_(row) {
    if constexpr (Cut::cached > 0) for_packs<Cut>(C, [&](int i, int c) { packs_[i] = load<kElements>(row + c); });
  }

  // The columns from c, the thread's i-th.
  __device__ Pack<T, kElements> at(int i, typename Cut::Column c) const {
    if constexpr (Cut::cached > 0)
      return packs_[i];
    else
      return load<kElements>(row_ + c);
  }

  __device__ void set(int i, const Pack<T, kElements>& pack) {
    if constexpr (Cut::cached > 0) packs_[i] = pack;
  }

 private:
  const T* row_;
  Pack<T, kElements> packs_[Cut::cached > 0 ? Cut::cached : 1];
};

// The sum over the threads of a row: a warp where blockDim.x is one, else the block.
template <int N>
__device__ __forceinline__ void row_sum(float (&x)[N]) {
  if (blockDim.x > kWarp) return block_reduce<Sum>(x, int(threadIdx.x), int(blockDim.x));
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = warp_reduce<Sum>(x[i]);
}

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

// The weights' gradients, first stage: block (x, y) sums 32 columns over the rows of slab y. Each of its 8 warps takes
// every 8th row.
constexpr int kSlabWarps = 8;
constexpr int64_t kMaxSlabs = 256;

// Depends on the shape alone, so that the order of the sum does.
int64_t slabs_of(int64_t R) { return std::min<int64_t>((R + 31) / 32, kMaxSlabs); }

template <class T>
__global__ void __launch_bounds__(kWarp* kSlabWarps)
    sum_slabs(const T* dy, const T* s, const float* mean, const float* rstd, float* partial, int64_t R, int64_t C) {
  DS_SHARED(float[2][kSlabWarps][kWarp], by_warp);
  int64_t c = int64_t(blockIdx.x) * kWarp + threadIdx.x, slabs = gridDim.y, slab = blockIdx.y;
  int64_t begin = R * slab / slabs, end = R * (slab + 1) / slabs;
  float dweight = 0, dbias = 0;
  if (c < C) {
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; r < end; r += kSlabWarps) {
      float g = to_f32(dy[r * C + c]);
      dweight += g * ((to_f32(s[r * C + c]) - mean[r]) * rstd[r]);
      dbias += g;
    }
  }
  by_warp[0][threadIdx.y][threadIdx.x] = dweight;
  by_warp[1][threadIdx.y][threadIdx.x] = dbias;
  __syncthreads();
  // Warp 0 finishes dweight, warp 1 dbias.
  if (threadIdx.y > 1 || c >= C) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kSlabWarps; ++w) total += by_warp[threadIdx.y][w][threadIdx.x];
  partial[(threadIdx.y * slabs + slab) * C + c] = total;
}

template <class G>
__global__ void __launch_bounds__(kMaxBlock)
    sum_partials(const float* partial, int64_t slabs, G* dweight, G* dbias, int64_t C, bool accumulate) {
  int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  G* target = (blockIdx.y == 0 ? dweight : dbias) + c;
  float total = 0;
  for (int64_t slab = 0; slab < slabs; ++slab) total += partial[(blockIdx.y * slabs + slab) * C + c];
  *target = from_f32<G>(accumulate ? to_f32(*target) + total : total);
}

// Calls fn<T, W>() with the dtype of the rows and that of the weights.
template <class F>
void dispatch_pair(DType rows, DType weights, F&& fn) {
  dispatch_float(rows, [&]<class T>() {
    if (weights == DType::f32) return fn.template operator()<T, float>();
    fn.template operator()<T, T>();
  });
}

// Calls fn<Cut>(grid, block) with the cut for rows of C columns of T; `aligned`: all pointers are, to 16 bytes.
template <class T, class F>
void for_rows(int64_t R, int64_t C, bool aligned, CudaContext& context, F&& fn) {
  using Cut = InRegisters<T>;
  if (R == 0) return;
  auto block_of = [](int64_t threads) {  // whole warps
    return dim3(unsigned(std::min<int64_t>((threads + kWarp - 1) / kWarp * kWarp, kMaxBlock)));
  };
  dim3 grid(strided_blocks(R, 1, context));
  if (!aligned || C % Cut::elements != 0 || C > int64_t(kMaxBlock) * Cut::elements * Cut::cached)
    return fn.template operator()<FromMemory>(grid, block_of(C));
  if (C <= int64_t(kWarp) * Cut::elements * Cut::cached)
    return fn.template operator()<Cut>(dim3(strided_blocks(R, kRowsByWarps, context)), dim3(kWarp, kRowsByWarps));
  // Two packs a thread hide more latency than one; four or eight only where 512 threads need them.
  fn.template operator()<Cut>(grid, block_of((C / Cut::elements + 1) / 2));
}

}  // namespace

void layer_norm(const LayerNorm& op, CudaContext& context) {
  int64_t R = op.mean.numel(), C = op.weight.numel();
  bool aligned = aligned_16(op.y.data, op.sum.data, op.x.data, op.residual.data, op.weight.data, op.bias.data);
  dispatch_pair(op.x.dtype, op.weight.dtype, [&]<class T, class W>() {
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
  int64_t R = op.mean.numel(), C = op.weight.numel(), slabs = slabs_of(R);
  const float *mean = op.mean.as<const float>(), *rstd = op.rstd.as<const float>();
  // The weights' gradients first: dx may overwrite dy.
  float* partial = context.scratch<float>(2 * slabs * C);
  dispatch_float(op.s.dtype, [&]<class T>() {
    dim3 grid(unsigned((C + kWarp - 1) / kWarp), unsigned(slabs));
    if (slabs)
      DS_LAUNCH(sum_slabs<T>, grid, dim3(kWarp, kSlabWarps), 0, context, op.dy.as<const T>(), op.s.as<const T>(), mean,
                rstd, partial, R, C);
  });
  dispatch_float(op.dweight.dtype, [&]<class G>() {
    dim3 grid(unsigned((C + kMaxBlock - 1) / kMaxBlock), 2);
    DS_LAUNCH(sum_partials<G>, grid, kMaxBlock, 0, context, partial, slabs, op.dweight.as<G>(), op.dbias.as<G>(), C,
              op.accumulate);
  });
  bool aligned = aligned_16(op.dx.data, op.dy.data, op.dsum.data, op.s.data, op.weight.data);
  dispatch_pair(op.s.dtype, op.weight.dtype, [&]<class T, class W>() {
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
