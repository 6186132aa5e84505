// One pass, bound by memory. The tensor is cut into chunks by its size alone; blocks take chunk after chunk and leave a
// result of each in scratch, and one more block puts these together in a fixed order.
#include "reduce.h"

#include <algorithm>

#include "../../cuda/rank.cuh"
#include "../../cuda/types.cuh"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kFinalBlock = 1024;
constexpr int64_t kChunk = 16384;  // 64 elements a thread

struct Min {
  static constexpr int64_t kNeutral = INT64_MAX;
  __device__ int64_t operator()(int64_t a, int64_t b) const { return a < b ? a : b; }
};
// What is reduced: the value of element i, how values combine, and what the last one means. An element beyond the end
// reads as 0, which changes none of them.
template <bool kSquare>
struct SumOf {
  using Value = double;
  using Combine = Sum;
  bool accumulate;
  __device__ double value(float x, int64_t) const { return kSquare ? double(x) * double(x) : double(x); }
  __device__ double result(double total, double before) const { return accumulate ? before + total : total; }
};
struct FirstNonfinite {
  using Value = int64_t;
  using Combine = Min;
  __device__ int64_t value(float x, int64_t i) const {
    return (__float_as_uint(x) & 0x7f800000u) == 0x7f800000u ? i : Min::kNeutral;
  }
  __device__ double result(int64_t first, double) const { return first == Min::kNeutral ? -1 : double(first); }
};

template <class F, class T, bool kWhole>
__global__ void __launch_bounds__(kBlock) reduce_chunks(F f, typename F::Value* parts, const T* x, int64_t n) {
  using Value = typename F::Value;
  constexpr int N = kPack<T>;
  typename F::Combine combine;
  int64_t chunks = (n + kChunk - 1) / kChunk;
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    int64_t begin = chunk * kChunk;
    int count = int(n - begin < kChunk ? n - begin : kChunk);
    Value total = Value(F::Combine::kNeutral);
#pragma unroll 4
    for (int i = int(threadIdx.x) * N; i < count; i += kBlock * N) {
      Pack<T, N> pack = load_up_to<N, kWhole>(count - i, x + begin + i);
#pragma unroll
      for (int k = 0; k < N; ++k) total = combine(total, f.value(to_f32(pack.at[k]), begin + i + k));
    }
    total = block_reduce<typename F::Combine>(total, int(threadIdx.x), kBlock);
    if (threadIdx.x == 0) parts[chunk] = total;
  }
}

template <class F>
__global__ void __launch_bounds__(kFinalBlock)
    reduce_parts(F f, double* out, const typename F::Value* parts, int64_t chunks) {
  using Value = typename F::Value;
  typename F::Combine combine;
  Value total = Value(F::Combine::kNeutral);
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < chunks; i += kFinalBlock) total = combine(total, parts[i]);
  total = block_reduce<typename F::Combine>(total, int(threadIdx.x), kFinalBlock);
  if (threadIdx.x == 0) *out = f.result(total, *out);
}

template <class F>
void reduce(F f, const Tensor& out, const Tensor& x, CudaContext& context) {
  using Value = typename F::Value;
  int64_t n = x.numel(), chunks = (n + kChunk - 1) / kChunk;
  Value* parts = context.scratch<Value>(chunks);
  dispatch_float(x.dtype, [&]<class T>() {
    unsigned blocks = strided_blocks(chunks, 1, context);
    if (blocks == 0) return;
    if (aligned_16(x.data))
      DS_LAUNCH((reduce_chunks<F, T, true>), blocks, kBlock, 0, context, f, parts, x.as<const T>(), n);
    else
      DS_LAUNCH((reduce_chunks<F, T, false>), blocks, kBlock, 0, context, f, parts, x.as<const T>(), n);
  });
  DS_LAUNCH(reduce_parts<F>, 1, kFinalBlock, 0, context, f, out.as<double>(), parts, chunks);
}

// Item i is segment i % segments of row i / segments. A warp (blockDim.x = 32) or a block takes one.
template <class T, int N>
__global__ void __launch_bounds__(kBlock)
    largest_of_segments(int32_t* out, uint64_t* parts, const T* x, int64_t R, int64_t V, int64_t segments) {
  Largest combine;
  int64_t items = R * segments;
  for (int64_t item = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; item < items;
       item += int64_t(gridDim.x) * blockDim.y) {
    int64_t r = item / segments, begin = item % segments * kChunk;
    int count = int(V - begin < kChunk ? V - begin : kChunk);
    uint64_t best = Largest::kNeutral;
#pragma unroll 4
    for (int i = int(threadIdx.x) * N; i < count; i += int(blockDim.x) * N) {
      Pack<T, N> pack = load<N>(x + r * V + begin + i);
#pragma unroll
      for (int k = 0; k < N; ++k) best = combine(best, rank_of(to_f32(pack.at[k]), begin + i + k));
    }
    best = blockDim.x > kWarp ? block_reduce<Largest>(best, int(threadIdx.x), int(blockDim.x))
                              : warp_reduce<Largest>(best);
    if (threadIdx.x != 0) continue;
    if (segments == 1)
      out[r] = column_of(best);
    else
      parts[item] = best;
  }
}

__global__ void __launch_bounds__(kBlock)
    largest_of_rows(int32_t* out, const uint64_t* parts, int64_t R, int64_t segments) {
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < R; r += int64_t(gridDim.x) * blockDim.y) {
    uint64_t best = Largest::kNeutral;
    for (int64_t s = threadIdx.x; s < segments; s += kWarp) best = Largest()(best, parts[r * segments + s]);
    best = warp_reduce<Largest>(best);
    if (threadIdx.x == 0) out[r] = column_of(best);
  }
}

}  // namespace

void sum(const ds::Sum& op, CudaContext& context) { reduce(SumOf<false>{op.accumulate}, op.out, op.x, context); }
void square_sum(const SquareSum& op, CudaContext& context) {
  reduce(SumOf<true>{op.accumulate}, op.out, op.x, context);
}
void nonfinite_index(const NonfiniteIndex& op, CudaContext& context) {
  reduce(FirstNonfinite{}, op.out, op.x, context);
}

void argmax(const Argmax& op, CudaContext& context) {
  constexpr int kShortRow = 1024, kRowsByWarps = kBlock / kWarp;
  int64_t R = op.out.numel();
  if (R == 0) return;
  int64_t V = op.x.numel() / R, segments = (V + kChunk - 1) / kChunk;
  uint64_t* parts = segments > 1 ? context.scratch<uint64_t>(R * segments) : nullptr;
  dim3 by_warps(kWarp, kRowsByWarps), block = V <= kShortRow ? by_warps : dim3(kBlock);
  dispatch_float(op.x.dtype, [&]<class T>() {
    auto launch_by = [&]<int N>() {
      DS_LAUNCH((largest_of_segments<T, N>), strided_blocks(R * segments, block.y, context), block, 0, context,
                op.out.as<int32_t>(), parts, op.x.as<const T>(), R, V, segments);
    };
    bool whole = aligned_16(op.x.data) && V % kPack<T> == 0;
    whole ? launch_by.template operator()<kPack<T>>() : launch_by.template operator()<1>();
  });
  if (parts)
    DS_LAUNCH(largest_of_rows, strided_blocks(R, kRowsByWarps, context), by_warps, 0, context, op.out.as<int32_t>(),
              parts, R, segments);
}

DS_CUDA_KERNEL(ds::Sum, sum)
DS_CUDA_KERNEL(SquareSum, square_sum)
DS_CUDA_KERNEL(NonfiniteIndex, nonfinite_index)
DS_CUDA_KERNEL(Argmax, argmax)

}  // namespace ds::cuda
