// The product of 16-bit matrices on tensor cores (mma.sync, compute capability 8.0 and later), summed in f32.
//
// A block makes a tile of C. Panels of A and B, 32 deep, arrive in a ring of stages by cp.async, three stages ahead of
// the arithmetic; ldmatrix takes fragments from there, transposing what is not stored along the depth. 16-byte chunks
// are permuted within a panel so that neither the copies nor ldmatrix meet bank conflicts. The sums go through shared
// memory once more, for whole 16-byte accesses in the epilogue.
//
// Bound by the tensor cores: with 64 x 64 of C a warp, shared memory gives 4 KiB for every 128 KiFLOP, half of its rate
// on an A100. On an H100 mma.sync itself reaches about 60 % of what wgmma does, which is why large products go to
// cuBLASLt where that is found.
#pragma once
#include "../../cuda/ptx.cuh"
#include "finish.cuh"

namespace ds::cuda {

constexpr int kPanelDepth = 32, kChunk = 8, kTensorThreads = 128;

template <int kTileRows, int kTileColumns, int kRingStages, int kBlocks>
struct TensorTile {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns, kStages = kRingStages;
  static constexpr int kBlocksPerMultiprocessor = kBlocks;
  static constexpr int kWarpRows = kRows / 2, kWarpColumns = kColumns / 2;  // four warps, two by two
  static constexpr int kSumStride = kColumns + 8;                           // rows of the sums then start 8 banks apart
  static constexpr int kStageElements = (kRows + kColumns) * kPanelDepth;
  static constexpr size_t kRing = size_t(kStages) * kStageElements * 2, kSums = size_t(kRows) * kSumStride * 4;
  static constexpr size_t kShared = kRing > kSums ? kRing : kSums;
};
using LargeTile = TensorTile<128, 128, 4, 2>;
using SmallTile = TensorTile<64, 64, 4, 4>;

// A panel in shared memory: kExtent rows of A, or columns of B, kPanelDepth deep. kAlong: stored along the depth.
template <class T, bool kAlong, int kExtent>
struct Panel {
  static constexpr int kRows = kAlong ? kExtent : kPanelDepth, kChunks = (kAlong ? kPanelDepth : kExtent) / kChunk;

  // Of a stored row's chunk. Eight rows of one chunk, which is what ldmatrix reads, lie in eight different groups of
  // banks.
  __device__ static int offset(int row, int chunk) {
    return (row * kChunks + (chunk ^ (kChunks == 4 ? row / 2 % 4 : row % 8))) * kChunk;
  }

  // 16 along the extent from e, 16 deep from k. kB: in the order of two of mma's B fragments, else of one A fragment.
  template <bool kB>
  __device__ static void fragment(uint32_t (&r)[4], const T* panel, int e, int k) {
    int lane = int(threadIdx.x) % kWarp, matrix = lane / 8, row = lane % 8;
    int second_e = (kB ? matrix / 2 : matrix % 2), second_k = (kB ? matrix % 2 : matrix / 2);
    const T* at = kAlong ? panel + offset(e + second_e * 8 + row, k / kChunk + second_k)
                         : panel + offset(k + second_k * 8 + row, e / kChunk + second_e);
    load_matrices<!kAlong>(r, at);
  }
};

// Copies one panel after the other from global memory. kAligned: whole chunks, by cp.async; else element by element.
template <class T, bool kAlong, int kExtent, bool kAligned>
class PanelLoader {
  using Target = Panel<T, kAlong, kExtent>;
  static constexpr int kLoads = Target::kRows * Target::kChunks / kTensorThreads;
  static constexpr int kRowStep = kTensorThreads / Target::kChunks;

 public:
  // From `begin` of `extent`, and from `first` to `depth` deep.
  __device__ PanelLoader(const T* data, int64_t stride, int64_t extent, int64_t begin, int64_t depth, int64_t first)
      : stride_(stride),
        left_(depth - first),
        inside_(int(extent - begin < kExtent ? extent - begin : kExtent)),
        row_(int(threadIdx.x) / Target::kChunks),
        chunk_(int(threadIdx.x) % Target::kChunks) {
    at_ = data + (kAlong ? (begin + row_) * stride + first : (first + row_) * stride + begin) + chunk_ * kChunk;
  }

  __device__ void next(T* panel) {
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      int row = row_ + i * kRowStep;
      const T* from = at_ + i * kRowStep * stride_;
      T* to = panel + Target::offset(row, chunk_);
      if constexpr (kAligned) {
        copy_async_16(to, from, within(row, 0));
      } else {
        Pack<T, kChunk> pack;
#pragma unroll
        for (int k = 0; k < kChunk; ++k) pack.at[k] = within(row, k) ? from[k] : T{};
        store(to, pack);
      }
    }
    at_ += kAlong ? kPanelDepth : kPanelDepth * stride_;
    left_ -= kPanelDepth;
  }

 private:
  __device__ bool within(int row, int k) const {
    int column = chunk_ * kChunk + k;
    return (kAlong ? row : column) < inside_ && (kAlong ? column : row) < left_;
  }

  const T* at_;
  int64_t stride_, left_;
  int inside_, row_, chunk_;
};

template <class T>
struct Factors {
  const T *a, *b;
  int64_t a_stride, b_stride, depth;
};

template <class T, class Out, bool kAAlong, bool kBAlong, class Tile, bool kAligned>
__global__ void __launch_bounds__(kTensorThreads, Tile::kBlocksPerMultiprocessor)
    tensor_gemm(Factors<T> in, Finish<Out, T> finish) {
  using PanelA = Panel<T, kAAlong, Tile::kRows>;
  using PanelB = Panel<T, kBAlong, Tile::kColumns>;
  constexpr int kStages = Tile::kStages, kM = Tile::kWarpRows / 16, kN = Tile::kWarpColumns / 16;
  DS_DYN_SHARED(unsigned char, bytes);
  auto panel_a = [&](int64_t step) { return reinterpret_cast<T*>(bytes) + step % kStages * Tile::kStageElements; };
  auto panel_b = [&](int64_t step) { return panel_a(step) + Tile::kRows * kPanelDepth; };

  TileIndex tile =
      tile_of(blockIdx.x, (finish.M + Tile::kRows - 1) / Tile::kRows, (finish.N + Tile::kColumns - 1) / Tile::kColumns);
  int64_t row = tile.row * Tile::kRows, column = tile.column * Tile::kColumns;
  int64_t panels = (in.depth + kPanelDepth - 1) / kPanelDepth, cuts = gridDim.z;
  int64_t first = panels * blockIdx.z / cuts, steps = panels * (blockIdx.z + 1) / cuts - first;
  PanelLoader<T, kAAlong, Tile::kRows, kAligned> a(in.a, in.a_stride, finish.M, row, in.depth, first * kPanelDepth);
  PanelLoader<T, kBAlong, Tile::kColumns, kAligned> b(in.b, in.b_stride, finish.N, column, in.depth,
                                                      first * kPanelDepth);
  auto fill = [&](int64_t step) {
    if (step < steps) {
      a.next(panel_a(step));
      b.next(panel_b(step));
    }
    copy_async_commit();  // an empty group too: the waits count groups
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fill(step);

  int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  int warp_row = warp / 2 * Tile::kWarpRows, warp_column = warp % 2 * Tile::kWarpColumns;
  float sums[kM][2 * kN][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // this step's panels are there, and all have done with the panels that the next copy overwrites
    fill(step + kStages - 1);
#pragma unroll
    for (int k = 0; k < kPanelDepth; k += 16) {
      uint32_t af[kM][4], bf[kN][4];
#pragma unroll
      for (int i = 0; i < kM; ++i) PanelA::template fragment<false>(af[i], panel_a(step), warp_row + 16 * i, k);
#pragma unroll
      for (int j = 0; j < kN; ++j) PanelB::template fragment<true>(bf[j], panel_b(step), warp_column + 16 * j, k);
#pragma unroll
      for (int i = 0; i < kM; ++i)
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          mma_16x8x16<T>(sums[i][2 * j], af[i], {bf[j][0], bf[j][1]});
          mma_16x8x16<T>(sums[i][2 * j + 1], af[i], {bf[j][2], bf[j][3]});
        }
    }
  }

  copy_async_wait<0>();
  __syncthreads();  // the ring becomes the place of the sums
  auto* tile_sums = reinterpret_cast<float*>(bytes);
#pragma unroll
  for (int i = 0; i < kM; ++i)
#pragma unroll
    for (int j = 0; j < 2 * kN; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        store(tile_sums + (warp_row + 16 * i + 8 * half + lane / 4) * Tile::kSumStride + warp_column + 8 * j +
                  lane % 4 * 2,
              Pack<float, 2>{{sums[i][j][2 * half], sums[i][j][2 * half + 1]}});
  __syncthreads();
  auto finish_by = [&]<int kElements>() {
    constexpr int kPerRow = Tile::kColumns / kElements;
    for (int p = int(threadIdx.x); p < Tile::kRows * kPerRow; p += kTensorThreads) {
      int r = p / kPerRow, c = p % kPerRow * kElements;
      if (row + r < finish.M && column + c < finish.N)
        finish(row + r, column + c, load<kElements>(tile_sums + r * Tile::kSumStride + c));
    }
  };
  if (finish.packed)
    finish_by.template operator()<8>();
  else
    finish_by.template operator()<1>();
}

}  // namespace ds::cuda
