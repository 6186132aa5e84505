// The product with few rows, y [R <= 8, N] = x W^T, as generation asks for: bound by reading the weight, once.
//
// A warp takes one to four rows of W and reads them by 16 bytes a lane; x is small and stays in L1. More rows of W a
// warp where there are more rows of x, so that reading x from L1 costs no more than reading W from memory. An output
// has the same bits whatever R is.
#pragma once
#include "../../cuda/reduce.cuh"
#include "finish.cuh"

namespace ds::cuda {

constexpr int kNarrowWarps = 8, kNarrowRows = 8;

template <class T, class W, int kRows, int kElements>
__global__ void __launch_bounds__(kNarrowWarps* kWarp)
    narrow_gemm(const T* x, const W* weight, int64_t K, Finish<T, W> finish) {
  constexpr int kColumns = kRows == 1 ? 1 : kRows == 4 ? 2 : 4;
  int lane = int(threadIdx.x) % kWarp, R = int(finish.M);
  int64_t groups = (finish.N + kColumns - 1) / kColumns;
  for (int64_t group = int64_t(blockIdx.x) * kNarrowWarps + threadIdx.x / kWarp; group < groups;
       group += int64_t(gridDim.x) * kNarrowWarps) {
    int64_t n = group * kColumns;
    float sums[kRows][kColumns] = {};
#pragma unroll(kRows == 1 ? 4 : 1)
    for (int64_t k = int64_t(lane) * kElements; k < K; k += kWarp * kElements) {
      Pack<W, kElements> w[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c)  // behind the last row, it again
        w[c] = load<kElements>(weight + (n + c < finish.N ? n + c : finish.N - 1) * K + k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= R) break;
        Pack<T, kElements> row = load<kElements>(x + r * K + k);
#pragma unroll
        for (int i = 0; i < kElements; ++i)
#pragma unroll
          for (int c = 0; c < kColumns; ++c) sums[r][c] = fmaf(to_f32(row.at[i]), to_f32(w[c].at[i]), sums[r][c]);
      }
    }
    float own = 0;  // lane r kColumns + c keeps output (r, c)
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        float total = warp_reduce<Sum>(sums[r][c]);
        if (lane == r * kColumns + c) own = total;
      }
    int r = lane / kColumns, c = lane % kColumns;
    if (r < kRows && r < R && n + c < finish.N) finish(r, n + c, Pack<float, 1>{{own}});
  }
}

template <class T, class W>
void narrow_gemm(const Gemm& g, CudaContext& context) {
  auto launch = [&]<int kRows, int kElements>() {
    constexpr int kColumns = kRows == 1 ? 1 : kRows == 4 ? 2 : 4;
    DS_LAUNCH((narrow_gemm<T, W, kRows, kElements>), strided_blocks(g.N, kNarrowWarps * kColumns, context),
              kNarrowWarps * kWarp, 0, context, static_cast<const T*>(g.a.data), static_cast<const W*>(g.b.data), g.K,
              finish_of<T, W>(g, nullptr));
  };
  constexpr int kElements = kPack<W>;
  if (g.K % kElements != 0 || !aligned_16(g.a.data, g.b.data)) return launch.template operator()<kNarrowRows, 1>();
  if (g.M == 1) return launch.template operator()<1, kElements>();
  if (g.M <= 4) return launch.template operator()<4, kElements>();
  launch.template operator()<kNarrowRows, kElements>();
}

}  // namespace ds::cuda
