// How kernels share the rows of a normalisation, and the columns of the gradients of its weights.
//
// One pass over memory where a row fits into the registers of its threads: a warp takes a row of up to 1024 columns, a
// block one of up to 16384. Other rows, and views that do not start at 16 bytes, are read again for each pass, one
// element an access. The weights' gradients are summed by slabs of rows and then over the slabs.
#pragma once
#include <algorithm>

#include "../../cuda/reduce.cuh"
#include "../../cuda/types.cuh"

namespace ds::cuda {

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

// Sums over rows, first stage: block (x, y) sums 32 columns over the rows of slab y. Each of its 8 warps takes every
// 8th row.
constexpr int kSlabWarps = 8;
constexpr int64_t kMaxSlabs = 256;

// Depends on the shape alone, so that the order of the sum does.
inline int64_t slabs_of(int64_t R) { return std::min<int64_t>((R + 31) / 32, kMaxSlabs); }

// terms.add(r, at, sums) adds what element `at`, of row r, brings to the Terms::kSums sums of its column.
template <class Terms>
__global__ void __launch_bounds__(kWarp* kSlabWarps) sum_slabs(Terms terms, float* partial, int64_t R, int64_t C) {
  constexpr int N = Terms::kSums;
  DS_SHARED(float[N][kSlabWarps][kWarp], by_warp);
  int64_t c = int64_t(blockIdx.x) * kWarp + threadIdx.x, slabs = gridDim.y, slab = blockIdx.y;
  int64_t begin = R * slab / slabs, end = R * (slab + 1) / slabs;
  float sums[N] = {};
  if (c < C) {
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; r < end; r += kSlabWarps) terms.add(r, r * C + c, sums);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) by_warp[i][threadIdx.y][threadIdx.x] = sums[i];
  __syncthreads();
  // Warp i finishes sum i.
  if (threadIdx.y >= N || c >= C) return;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kSlabWarps; ++w) total += by_warp[threadIdx.y][w][threadIdx.x];
  partial[(threadIdx.y * slabs + slab) * C + c] = total;
}

// Second stage: where the sum of blockIdx.y goes.
template <class G, int N>
struct Targets {
  G* at[N];
};

template <class G, int N>
__global__ void __launch_bounds__(kMaxBlock)
    sum_partials(const float* partial, int64_t slabs, Targets<G, N> targets, int64_t C, bool accumulate) {
  int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= C) return;
  G* target = targets.at[blockIdx.y] + c;
  float total = 0;
  for (int64_t slab = 0; slab < slabs; ++slab) total += partial[(blockIdx.y * slabs + slab) * C + c];
  *target = from_f32<G>(accumulate ? to_f32(*target) + total : total);
}

// Sums the terms of R rows by columns into `targets` of G, each [C].
template <class G, class Terms, int N>
void sum_columns(const Terms& terms, const Targets<G, N>& targets, int64_t R, int64_t C, bool accumulate,
                 float* partial, CudaContext& context) {
  static_assert(N == Terms::kSums);
  int64_t slabs = slabs_of(R);
  if (slabs)
    DS_LAUNCH(sum_slabs<Terms>, dim3(unsigned((C + kWarp - 1) / kWarp), unsigned(slabs)), dim3(kWarp, kSlabWarps), 0,
              context, terms, partial, R, C);
  DS_LAUNCH((sum_partials<G, N>), dim3(unsigned((C + kMaxBlock - 1) / kMaxBlock), N), kMaxBlock, 0, context, partial,
            slabs, targets, C, accumulate);
}

}  // namespace ds::cuda
