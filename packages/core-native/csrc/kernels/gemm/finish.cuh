// What happens to the sums of a product on their way to memory: the epilogue of gemm.h, for every kernel that makes
// sums.
#pragma once
#include "../../cuda/types.cuh"
#include "../common/gelu.cuh"
#include "gemm.h"

namespace ds::cuda {

template <class Out, class Bias>
struct Finish {
  Out *out, *pre;
  const Out* residual;
  const Bias* bias;
  bool gelu, accumulate;
  bool packed;  // whether N and every pointer allow accesses of 8 elements
  int64_t M, N;
  float* partial;  // where depth is cut: [cuts, M, N], finished by another kernel; cut blockIdx.z writes its sums

  // That of `count` rows from row `first`.
  Finish rows(int64_t first, int64_t count) const {
    Finish part = *this;
    auto advance = [&](auto*& p) { p = p ? p + first * N : p; };
    advance(part.out), advance(part.pre), advance(part.residual);
    part.M = count;
    return part;
  }

  // kElements sums of row r from column c.
  template <int kElements>
  __device__ __forceinline__ void operator()(int64_t r, int64_t c, Pack<float, kElements> s) const {
    int64_t at = r * N + c;
    if (partial) return store(partial + int64_t(blockIdx.z) * M * N + at, s);
    auto add = [&](const auto* p) {
      auto pack = load<kElements>(p);
#pragma unroll
      for (int k = 0; k < kElements; ++k) s.at[k] += to_f32(pack.at[k]);
    };
    Pack<Out, kElements> rounded;
    auto round = [&] {
#pragma unroll
      for (int k = 0; k < kElements; ++k) rounded.at[k] = from_f32<Out>(s.at[k]);
    };
    if (bias) add(bias + c);
    if (pre) {
      round();
      store(pre + at, rounded);
    }
    if (gelu) {
#pragma unroll
      for (int k = 0; k < kElements; ++k) s.at[k] = cuda::gelu<sizeof(Out) == 2>(s.at[k]);
    }
    if (residual) add(residual + at);
    if (accumulate) add(out + at);
    round();
    store(out + at, rounded);
  }
};

template <class Out, class Bias>
Finish<Out, Bias> finish_of(const Gemm& g, float* partial) {
  const Epilogue& e = g.epilogue;
  bool packed = g.N % 8 == 0 && aligned_16(g.c.data, e.pre, e.residual, e.bias, partial);
  return {static_cast<Out*>(g.c.data),
          static_cast<Out*>(e.pre),
          static_cast<const Out*>(e.residual),
          static_cast<const Bias*>(e.bias),
          e.gelu,
          g.accumulate,
          packed,
          g.M,
          g.N,
          partial};
}

constexpr int kFinishBlock = 256;

// The sums [cuts, M, N] of `cuts` parts of the depth, added in their order, and the epilogue. Bound by memory.
template <int kElements, class Out, class Bias>
__global__ void __launch_bounds__(kFinishBlock) finish_sums(const float* sums, int cuts, Finish<Out, Bias> finish) {
  int64_t per_row = finish.N / kElements, packs = finish.M * per_row;
  for (int64_t p = int64_t(blockIdx.x) * kFinishBlock + threadIdx.x; p < packs;
       p += int64_t(gridDim.x) * kFinishBlock) {
    Pack<float, kElements> total = load<kElements>(sums + p * kElements);
    for (int cut = 1; cut < cuts; ++cut) {
      auto part = load<kElements>(sums + cut * finish.M * finish.N + p * kElements);
#pragma unroll
      for (int k = 0; k < kElements; ++k) total.at[k] += part.at[k];
    }
    finish(p / per_row, p % per_row * kElements, total);
  }
}

// Finishes sums that another kernel left in memory.
template <class Out, class Bias>
void finish_from(const float* sums, int cuts, Finish<Out, Bias> finish, CudaContext& context) {
  finish.partial = nullptr;
  int64_t n = finish.M * finish.N;
  if (finish.packed)
    DS_LAUNCH((finish_sums<8, Out, Bias>), strided_blocks(n, kFinishBlock * 8, context), kFinishBlock, 0, context, sums,
              cuts, finish);
  else
    DS_LAUNCH((finish_sums<1, Out, Bias>), strided_blocks(n, kFinishBlock, context), kFinishBlock, 0, context, sums,
              cuts, finish);
}

// The tile of a block, from tile_of(blockIdx.x): groups of 8 rows of tiles, column by column, so that blocks that run
// together read the same panels out of L2.
struct TileIndex {
  int64_t row, column;
};
__device__ __forceinline__ TileIndex tile_of(int64_t block, int64_t rows, int64_t columns) {
  constexpr int64_t kGroup = 8;
  int64_t group = block / (kGroup * columns), first = group * kGroup, inside = block % (kGroup * columns);
  int64_t height = rows - first < kGroup ? rows - first : kGroup;
  return {first + inside % height, inside / height};
}

}  // namespace ds::cuda
