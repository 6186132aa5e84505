// A warp has a row of scores, 16 bytes a lane: neighbouring lanes have neighbouring packs of a block's row, and go on
// with the next blocks of the list. Bound by memory: a row of up to 8 packs a lane is read once, into registers; a
// longer one twice, its maximum and sum made in one pass.
#include "block_softmax.h"

#include "../../cuda/reduce.cuh"
#include "block_lists.cuh"

namespace ds::cuda {
namespace {

constexpr int kWarpsOfBlock = 4, kRowThreads = kWarpsOfBlock * kWarp;
constexpr int kCachedPacks = 8;  // of a lane, in registers

// One row of scores of one head. kElements: of a pack.
template <int kElements>
struct ScoreRow {
  Strip strip;
  int64_t bh;
  int block, inside, query;
  int length, packs;  // its elements, and those packs that a lane has at most

  // `number`: of all rows of all heads. The lists are by rows of blocks.
  __device__ ScoreRow(const LayoutLists& lists, int64_t number)
      : strip(lists, number / (int64_t(lists.side) * lists.block),
              int(number % (int64_t(lists.side) * lists.block) / lists.block), false),
        bh(number / (int64_t(lists.side) * lists.block)),
        block(lists.block),
        inside(int(number % lists.block)),
        query(int(number % (int64_t(lists.side) * lists.block))),
        length((strip.end - strip.begin) * lists.block),
        packs((length + kWarp * kElements - 1) / (kWarp * kElements)) {}

  // Calls body(i, place in s, key) for the lane's packs. kUnrolled: for at most so many, with i a constant; else all.
  template <int kUnrolled, class Body>
  __device__ __forceinline__ void for_packs(Body&& body) const {
    auto visit = [&](int i) {
      int x = (i * kWarp + int(threadIdx.x) % kWarp) * kElements;
      if (x >= length) return;
      int at = strip.begin + x / block, column = x % block;
      body(i, (strip.block(at) * block + inside) * block + column, strip.others[at] * block + column);
    };
    if constexpr (kUnrolled > 0) {
#pragma unroll
      for (int i = 0; i < kUnrolled; ++i) visit(i);
    } else {
      for (int i = 0; i < packs; ++i) visit(i);
    }
  }
};

template <class T>
struct Softmax {
  LayoutLists lists;
  T* p;
  const T* s;
  const float* added;
  const uint8_t* mask;
  int64_t rows, added_head;  // elements from one head's `added` to the next's
  float scale;
  bool causal;

  // N scores from a place in s, minus infinity where the key is not visible.
  template <int N>
  __device__ __forceinline__ Pack<float, N> scores(const ScoreRow<N>& row, int64_t at, int key) const {
    int64_t tokens = int64_t(lists.side) * lists.block;
    Pack<T, N> raw = load<N>(s + at);
    Pack<float, N> x;
#pragma unroll
    for (int k = 0; k < N; ++k) x.at[k] = to_f32(raw.at[k]) * scale;
    if (added) {
      Pack<float, N> bias = load<N>(added + row.bh % lists.heads * added_head + row.query * tokens + key);
#pragma unroll
      for (int k = 0; k < N; ++k) x.at[k] += bias.at[k];
    }
    if (mask) {
      Pack<uint8_t, N> seen = load<N>(mask + row.bh / lists.heads * tokens + key);
#pragma unroll
      for (int k = 0; k < N; ++k) x.at[k] = seen.at[k] ? x.at[k] : -INFINITY;
    }
    if (causal) {
#pragma unroll
      for (int k = 0; k < N; ++k) x.at[k] = key + k <= row.query ? x.at[k] : -INFINITY;
    }
    return x;
  }
};

// For 16-bit results the approximate exponential, whose error of 2^-21 is far below their rounding.
template <class T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (sizeof(T) == 2)
    return __expf(x);
  else
    return expf(x);
}

// A row without a visible key has only zeros; a NaN stays one.
__device__ __forceinline__ float reciprocal(float total) { return total == 0.0f ? 0.0f : 1.0f / total; }

__device__ __forceinline__ float finite_base(float top) { return top == -INFINITY ? 0.0f : top; }

template <class T, int N>
__device__ __forceinline__ void write_scaled(T* to, const Pack<float, N>& x, float factor) {
  Pack<T, N> out;
#pragma unroll
  for (int k = 0; k < N; ++k) out.at[k] = from_f32<T>(x.at[k] * factor);
  store(to, out);
}

template <class T, int N>
__device__ __forceinline__ void softmax_in_registers(const Softmax<T>& op, const ScoreRow<N>& row) {
  Pack<float, N> x[kCachedPacks];
  float top = -INFINITY, total = 0;
  row.template for_packs<kCachedPacks>([&](int i, int64_t at, int key) {
    x[i] = op.scores(row, at, key);
#pragma unroll
    for (int k = 0; k < N; ++k) top = Max()(x[i].at[k], top);
  });
  float base = finite_base(warp_reduce<Max>(top));
  row.template for_packs<kCachedPacks>([&](int i, int64_t, int) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      x[i].at[k] = exponential<T>(x[i].at[k] - base);
      total += x[i].at[k];
    }
  });
  float factor = reciprocal(warp_reduce<Sum>(total));
  row.template for_packs<kCachedPacks>([&](int i, int64_t at, int) { write_scaled(op.p + at, x[i], factor); });
}

template <class T, int N>
__device__ __forceinline__ void softmax_by_passes(const Softmax<T>& op, const ScoreRow<N>& row) {
  // The sum so far is in units of exp(the lane's maximum so far).
  float top = -INFINITY, total = 0;
  row.template for_packs<0>([&](int, int64_t at, int key) {
    Pack<float, N> x = op.scores(row, at, key);
    float before = top;
#pragma unroll
    for (int k = 0; k < N; ++k) top = Max()(x.at[k], top);
    float base = finite_base(top), sum = 0;
#pragma unroll
    for (int k = 0; k < N; ++k) sum += exponential<T>(x.at[k] - base);
    total = total * exponential<T>(before - base) + sum;
  });
  float base = finite_base(warp_reduce<Max>(top));
  float factor = reciprocal(warp_reduce<Sum>(total * exponential<T>(finite_base(top) - base)));
  row.template for_packs<0>([&](int, int64_t at, int key) {
    Pack<float, N> x = op.scores(row, at, key);
#pragma unroll
    for (int k = 0; k < N; ++k) x.at[k] = exponential<T>(x.at[k] - base);
    write_scaled(op.p + at, x, factor);
  });
}

template <class T, int N>
__global__ void __launch_bounds__(kRowThreads) softmax(Softmax<T> op) {
  if (lists_are_bad(op.lists)) return;
  int64_t step = int64_t(gridDim.x) * kWarpsOfBlock;
  for (int64_t r = int64_t(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarp; r < op.rows; r += step) {
    ScoreRow<N> row(op.lists, r);
    if (row.packs <= kCachedPacks)
      softmax_in_registers(op, row);
    else
      softmax_by_passes(op, row);
  }
}

template <class T>
struct SoftmaxBackward {
  LayoutLists lists;
  T* ds;
  const T *dp, *p;
  int64_t rows;
  float scale;
};

template <class T, int N, int kCached>
__device__ __forceinline__ void backward_row(const SoftmaxBackward<T>& op, const ScoreRow<N>& row) {
  Pack<T, N> p[kCached > 0 ? kCached : 1], dp[kCached > 0 ? kCached : 1];
  float total = 0;
  row.template for_packs<kCached>([&](int i, int64_t at, int) {
    int slot = kCached > 0 ? i : 0;
    p[slot] = load<N>(op.p + at), dp[slot] = load<N>(op.dp + at);
#pragma unroll
    for (int k = 0; k < N; ++k) total = fmaf(to_f32(p[slot].at[k]), to_f32(dp[slot].at[k]), total);
  });
  float all = warp_reduce<Sum>(total);
  row.template for_packs<kCached>([&](int i, int64_t at, int) {
    int slot = kCached > 0 ? i : 0;
    if constexpr (kCached == 0) p[slot] = load<N>(op.p + at), dp[slot] = load<N>(op.dp + at);
#pragma unroll
    for (int k = 0; k < N; ++k)
      p[slot].at[k] = from_f32<T>(to_f32(p[slot].at[k]) * op.scale * (to_f32(dp[slot].at[k]) - all));
    store(op.ds + at, p[slot]);
  });
}

template <class T, int N>
__global__ void __launch_bounds__(kRowThreads) softmax_backward(SoftmaxBackward<T> op) {
  if (lists_are_bad(op.lists)) return;
  int64_t step = int64_t(gridDim.x) * kWarpsOfBlock;
  for (int64_t r = int64_t(blockIdx.x) * kWarpsOfBlock + threadIdx.x / kWarp; r < op.rows; r += step) {
    ScoreRow<N> row(op.lists, r);
    if (row.packs <= kCachedPacks)
      backward_row<T, N, kCachedPacks>(op, row);
    else
      backward_row<T, N, 0>(op, row);
  }
}

int64_t rows_of(const Tensor& s, const BlockLayout& layout) {
  return s.numel() == 0 ? 0 : s.dim(0) * layout.head_layout.numel() * layout.side() * layout.block;
}

}  // namespace

void block_softmax(const BlockSoftmax& op, CudaContext& context) {
  LayoutLists lists = checked_lists<BlockSoftmax>(op.layout, op.s.dim(1), context);
  int64_t tokens = op.tokens(), rows = rows_of(op.s, op.layout);
  if (rows == 0) return;
  bool aligned = aligned_16(op.p.data, op.s.data, op.added.data, op.mask.data);
  dispatch_float(op.s.dtype, [&]<class T>() {
    Softmax<T> arguments{lists,
                         op.p.as<T>(),
                         op.s.as<const T>(),
                         op.added.as<const float>(),
                         op.mask.as<const uint8_t>(),
                         rows,
                         op.added.numel() == tokens * tokens ? 0 : tokens * tokens,
                         float(op.scale),
                         op.causal};
    unsigned grid = strided_blocks(rows, kWarpsOfBlock, context);
    if (aligned)
      DS_LAUNCH((softmax<T, kPack<T>>), grid, kRowThreads, 0, context, arguments);
    else
      DS_LAUNCH((softmax<T, 1>), grid, kRowThreads, 0, context, arguments);
  });
}

void block_softmax_backward(const BlockSoftmaxBackward& op, CudaContext& context) {
  LayoutLists lists = checked_lists<BlockSoftmaxBackward>(op.layout, op.p.dim(1), context);
  int64_t rows = rows_of(op.p, op.layout);
  if (rows == 0) return;
  bool aligned = aligned_16(op.ds.data, op.dp.data, op.p.data);
  dispatch_float(op.p.dtype, [&]<class T>() {
    SoftmaxBackward<T> arguments{lists, op.ds.as<T>(), op.dp.as<const T>(), op.p.as<const T>(), rows, float(op.scale)};
    unsigned grid = strided_blocks(rows, kWarpsOfBlock, context);
    if (aligned)
      DS_LAUNCH((softmax_backward<T, kPack<T>>), grid, kRowThreads, 0, context, arguments);
    else
      DS_LAUNCH((softmax_backward<T, 1>), grid, kRowThreads, 0, context, arguments);
  });
}

DS_CUDA_KERNEL(BlockSoftmax, block_softmax)
DS_CUDA_KERNEL(BlockSoftmaxBackward, block_softmax_backward)

}  // namespace ds::cuda
