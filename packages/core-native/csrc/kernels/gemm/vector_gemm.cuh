// The product in exact f32 on the CUDA cores, for f32 and for f32 weights beside 16-bit rows: those are widened on
// their way into shared memory.
//
// 256 threads make a square tile of C, each a square of it in registers. Panels, 16 deep, are in shared memory twice:
// one is read while the next one comes. Bound by FMA: a tile of 128 gives a thread 64 of them for four 16-byte reads of
// shared memory.
#pragma once
#include "finish.cuh"

namespace ds::cuda {

constexpr int kVectorDepth = 16, kVectorThreads = 256;

// kAlong: stored along the depth. kElements of one access.
template <class T, bool kAlong, int kTile, int kElements>
class VectorLoader {
  static constexpr int kLoads = kTile * kVectorDepth / kVectorThreads / kElements;
  static constexpr int kPerRow = (kAlong ? kVectorDepth : kTile) / kElements, kRowStep = kVectorThreads / kPerRow;

 public:
  __device__ VectorLoader(const T* data, int64_t stride, int64_t extent, int64_t begin, int64_t depth, int64_t first)
      : stride_(stride),
        left_(depth - first),
        inside_(int(extent - begin < kTile ? extent - begin : kTile)),
        row_(int(threadIdx.x) / kPerRow),
        column_(int(threadIdx.x) % kPerRow * kElements) {
    at_ = data + (kAlong ? (begin + row_) * stride + first : (first + row_) * stride + begin) + column_;
  }

  __device__ void fetch() {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      int row = row_ + i * kRowStep;
      bool valid = (kAlong ? row : column_) < inside_ && (kAlong ? column_ : row) < left_;
      packs_[i] = valid ? load<kElements>(at_ + i * kRowStep * stride_) : Pack<T, kElements>{};
    }
    at_ += kAlong ? kVectorDepth : kVectorDepth * stride_;
    left_ -= kVectorDepth;
  }

  // Along the depth four rows meet in a bank pair; 1 store of 32 products is not worth more than that.
  __device__ void put(float (&panel)[kVectorDepth][kTile + 4]) const {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      int row = row_ + i * kRowStep;
      Pack<float, kElements> wide;
#pragma unroll
      for (int k = 0; k < kElements; ++k) wide.at[k] = to_f32(packs_[i].at[k]);
      if constexpr (kAlong) {
#pragma unroll
        for (int k = 0; k < kElements; ++k) panel[column_ + k][row] = wide.at[k];
      } else {
        store(&panel[row][column_], wide);
      }
    }
  }

 private:
  const T* at_;
  int64_t stride_, left_;
  int inside_, row_, column_;
  Pack<T, kElements> packs_[kLoads];
};

template <class A, class B>
struct VectorFactors {
  const A* a;
  const B* b;
  int64_t a_stride, b_stride, depth;
};

// Out is A: the results have the dtype of the rows.
template <class A, class B, bool kAAlong, bool kBAlong, int kTile, int kElements>
__global__ void __launch_bounds__(kVectorThreads) vector_gemm(VectorFactors<A, B> in, Finish<A, B> finish) {
  constexpr int kQuads = kTile / 64;  // a thread has rows and columns 4 t.. of every 64
  DS_SHARED(float[2][kVectorDepth][kTile + 4], panel_a);
  DS_SHARED(float[2][kVectorDepth][kTile + 4], panel_b);
  TileIndex tile = tile_of(blockIdx.x, (finish.M + kTile - 1) / kTile, (finish.N + kTile - 1) / kTile);
  int64_t row = tile.row * kTile, column = tile.column * kTile;
  int64_t panels = (in.depth + kVectorDepth - 1) / kVectorDepth, cuts = gridDim.z;
  int64_t first = panels * blockIdx.z / cuts, steps = panels * (blockIdx.z + 1) / cuts - first;
  VectorLoader<A, kAAlong, kTile, kElements> a(in.a, in.a_stride, finish.M, row, in.depth, first * kVectorDepth);
  VectorLoader<B, kBAlong, kTile, kElements> b(in.b, in.b_stride, finish.N, column, in.depth, first * kVectorDepth);
  int ty = int(threadIdx.x) / 16 * 4, tx = int(threadIdx.x) % 16 * 4;
  float sums[4 * kQuads][4 * kQuads] = {};
  if (steps > 0) {
    a.fetch(), b.fetch();
    a.put(panel_a[0]), b.put(panel_b[0]);
  }
  __syncthreads();
  for (int64_t step = 0; step < steps; ++step) {
    int now = int(step % 2);
    if (step + 1 < steps) a.fetch(), b.fetch();
#pragma unroll
    for (int k = 0; k < kVectorDepth; ++k) {
      Pack<float, 4> av[kQuads], bv[kQuads];
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        av[q] = load<4>(&panel_a[now][k][64 * q + ty]);
        bv[q] = load<4>(&panel_b[now][k][64 * q + tx]);
      }
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
#pragma unroll
        for (int j = 0; j < 4 * kQuads; ++j) sums[i][j] = fmaf(av[i / 4].at[i % 4], bv[j / 4].at[j % 4], sums[i][j]);
    }
    // The other panel: its last readers passed the barrier of the step before.
    if (step + 1 < steps) a.put(panel_a[1 - now]), b.put(panel_b[1 - now]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4 * kQuads; ++i) {
    int64_t r = row + i / 4 * 64 + ty + i % 4;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      int64_t c = column + 64 * q + tx;
      Pack<float, 4> four;
#pragma unroll
      for (int k = 0; k < 4; ++k) four.at[k] = sums[i][4 * q + k];
      if (r >= finish.M) continue;
      if (finish.packed) {
        if (c < finish.N) finish(r, c, four);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k)
          if (c + k < finish.N) finish(r, c + k, Pack<float, 1>{{four.at[k]}});
      }
    }
  }
}

}  // namespace ds::cuda
