// The tile of a product of blocks: C [kRows, 64] = sum over depth of A [kRows, depth] B [depth, 64], f32 sums.
//
// Panels of A and B, 32 deep, arrive in a ring of stages by cp.async, ahead of the arithmetic. 16-bit types multiply on
// the tensor cores, whose fragments ldmatrix takes from the panels, transposing what is not stored along the depth. f32
// multiplies by FMA, exact to f32's rounding as the contract has it. 16-byte chunks are permuted within a panel so that
// neither the copies nor ldmatrix meet bank conflicts.
#pragma once
#include "../../cuda/ptx.cuh"

namespace ds::cuda {

constexpr int kPanelTokens = 32, kTileColumns = 64;

// A panel in shared memory: kExtent rows of A, or columns of B, 32 deep. kAlong: stored along the depth.
template <class T, bool kStoredAlong, int kItsExtent>
struct BlockPanel {
  static constexpr bool kAlong = kStoredAlong;
  static constexpr int kExtent = kItsExtent, kChunk = kPack<T>;
  static constexpr int kRows = kAlong ? kExtent : kPanelTokens, kChunks = (kAlong ? kPanelTokens : kExtent) / kChunk;

  // Of a stored row's chunk. Eight neighbouring rows of one chunk lie in eight different groups of banks.
  __device__ static int offset(int row, int chunk) {
    int turn = kChunks >= 8 ? row % 8 : row / (8 / kChunks) % kChunks;
    return (row * kChunks + (chunk ^ turn)) * kChunk;
  }

  // Tensor cores: 16 along the extent from e, 16 deep from k. kB: in the order of two of mma's B fragments, else of one
  // A fragment.
  template <bool kB>
  __device__ static void fragment(uint32_t (&r)[4], const T* panel, int e, int k) {
    int lane = int(threadIdx.x) % kWarp, matrix = lane / 8, row = lane % 8;
    int second_e = kB ? matrix / 2 : matrix % 2, second_k = kB ? matrix % 2 : matrix / 2;
    load_matrices<!kAlong>(r, kAlong ? panel + offset(e + second_e * 8 + row, k / kChunk + second_k)
                                     : panel + offset(k + second_k * 8 + row, e / kChunk + second_e));
  }

  // FMA, T = float: elements e(0) .. e(N - 1), 4 deep from k. Without kAlong, e counts up from a multiple of 4.
  template <int N, class E>
  __device__ static void elements(float (&x)[N][4], const T* panel, int k, E&& e) {
    if constexpr (kAlong) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        Pack<float, 4> pack = load<4>(panel + offset(e(i), k / 4));
#pragma unroll
        for (int j = 0; j < 4; ++j) x[i][j] = pack.at[j];
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int i = 0; i < N; i += 4) {
          Pack<float, 4> pack = load<4>(panel + offset(k + j, e(i) / 4));
#pragma unroll
          for (int l = 0; l < 4; ++l) x[i + l][j] = pack.at[l];
        }
    }
  }
};

// Neighbouring elements in memory, from 0 of them to a chunk; the others of the chunk count as zeros.
template <class T>
struct Source {
  const T* data;
  int count;
};

// Starts the copy of a panel. source(e, k): the elements from e along the extent at depth k, or from k along the depth.
// `aligned`: sources are whole chunks at 16 bytes, or nothing; else the copy is done by elements, at once.
template <class P, int kThreads, class T, class F>
__device__ __forceinline__ void fill_panel(T* panel, bool aligned, F&& source) {
  auto from = [&](int row, int chunk) {
    return P::kAlong ? source(row, chunk * P::kChunk) : source(chunk * P::kChunk, row);
  };
  constexpr int kSteps = P::kRows * P::kChunks / kThreads;
  static_assert(P::kRows * P::kChunks % kThreads == 0);
  int first = int(threadIdx.x);
  if (aligned) {
#pragma unroll 2
    for (int step = 0; step < kSteps; ++step) {
      int row = (first + step * kThreads) / P::kChunks, chunk = (first + step * kThreads) % P::kChunks;
      Source<T> chunk_source = from(row, chunk);
      copy_async_16(panel + P::offset(row, chunk), chunk_source.data, chunk_source.count > 0);
    }
  } else {
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
      int row = (first + step * kThreads) / P::kChunks, chunk = (first + step * kThreads) % P::kChunks;
      Source<T> chunk_source = from(row, chunk);
      Pack<T> pack;
#pragma unroll
      for (int k = 0; k < P::kChunk; ++k) pack.at[k] = k < chunk_source.count ? chunk_source.data[k] : T{};
      store(panel + P::offset(row, chunk), pack);
    }
  }
}

template <int kRows>
constexpr int kTileThreads = kRows == 16 ? 64 : 128;
// Blocks of threads that must fit a multiprocessor: what leaves each thread the registers that it needs.
template <class T, int kRows>
constexpr int kTileBlocks = kRows == 16      ? 8
                            : kRows == 32    ? 4
                            : sizeof(T) == 4 ? 2
                                             : 3;

// Tensor cores: a warp has kRows / 2 (at least 16) rows and 32 columns.
template <class T, int kRows, class PanelA, class PanelB>
class TileSums {
  static constexpr int kM = kRows == 64 ? 2 : 1, kN = 2;

 public:
  __device__ TileSums() : row_(int(threadIdx.x) / kWarp / 2 * kM * 16), column_(int(threadIdx.x) / kWarp % 2 * 32) {}

  __device__ void add(const T* a, const T* b) {
#pragma unroll
    for (int k = 0; k < kPanelTokens; k += 16) {
      uint32_t left[kM][4], right[kN][4];
#pragma unroll
      for (int i = 0; i < kM; ++i) PanelA::template fragment<false>(left[i], a, row_ + 16 * i, k);
#pragma unroll
      for (int j = 0; j < kN; ++j) PanelB::template fragment<true>(right[j], b, column_ + 16 * j, k);
#pragma unroll
      for (int i = 0; i < kM; ++i)
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          mma_16x8x16<T>(sums_[i][2 * j], left[i], {right[j][0], right[j][1]});
          mma_16x8x16<T>(sums_[i][2 * j + 1], left[i], {right[j][2], right[j][3]});
        }
    }
  }

  // Calls body(row, column, sum) for each of the thread's sums, and clears them.
  template <class Body>
  __device__ void take(Body&& body) {
    int g = int(threadIdx.x) % kWarp / 4, t = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < 2 * kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          body(row_ + 16 * i + e / 2 * 8 + g, column_ + 8 * j + 2 * t + e % 2, sums_[i][j][e]);
          sums_[i][j][e] = 0;
        }
  }

 private:
  int row_, column_;
  float sums_[kM][2 * kN][4] = {};
};

// FMA: a thread has 4 columns and 4 rows, 8 of 64.
template <int kRows, class PanelA, class PanelB>
class TileSums<float, kRows, PanelA, PanelB> {
  static constexpr int kM = kRows == 64 ? 8 : 4;

 public:
  __device__ void add(const float* a, const float* b) {
#pragma unroll 1
    for (int k = 0; k < kPanelTokens; k += 4) {
      float left[kM][4], right[4][4];
      PanelA::elements(left, a, k, [](int i) { return row(i); });
      PanelB::elements(right, b, k, [](int j) { return column(j); });
#pragma unroll
      for (int l = 0; l < 4; ++l)
#pragma unroll
        for (int i = 0; i < kM; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums_[i][j] = fmaf(left[i][l], right[j][l], sums_[i][j]);
    }
  }

  template <class Body>
  __device__ void take(Body&& body) {
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        body(row(i), column(j), sums_[i][j]);
        sums_[i][j] = 0;
      }
  }

 private:
  __device__ static int row(int i) { return int(threadIdx.x) / 16 * kM + i; }
  // Stored along the depth, neighbouring threads have neighbouring columns, whose chunks lie in different banks.
  __device__ static int column(int j) {
    return PanelB::kAlong ? int(threadIdx.x) % 16 + 16 * j : int(threadIdx.x) % 16 * 4 + j;
  }

  float sums_[kM][4] = {};
};

// The shared memory of a tile: a ring of panels, which the sums take over at the end.
template <class T, int kRows>
struct TileMemory {
  static constexpr int kStages = sizeof(T) == 2 ? 4 : 3, kStageElements = (kRows + kTileColumns) * kPanelTokens;
  static constexpr int kSumStride = kTileColumns + 8, kTurnedStride = kRows + 1;
  static constexpr size_t kRing = size_t(kStages) * kStageElements * sizeof(T);
  static constexpr size_t kSums =
      sizeof(float) *
      (kRows * kSumStride > kTileColumns * kTurnedStride ? kRows * kSumStride : kTileColumns * kTurnedStride);
  static constexpr size_t kBytes = kRing > kSums ? kRing : kSums;

  unsigned char* bytes;
  __device__ T* panel_a(int step) const { return reinterpret_cast<T*>(bytes) + step % kStages * kStageElements; }
  __device__ T* panel_b(int step) const { return panel_a(step) + kRows * kPanelTokens; }
  __device__ float* sums() const { return reinterpret_cast<float*>(bytes); }

  // Runs `steps` panels through the ring: fill(step) starts their copies, add(step) uses them. Afterwards the memory is
  // free for the sums.
  template <class Fill, class Add>
  __device__ __forceinline__ void run(int steps, Fill&& fill, Add&& add) const {
    auto start = [&](int step) {
      if (step < steps) fill(step);
      copy_async_commit();  // an empty group too: the waits count groups
    };
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) start(step);
    for (int step = 0; step < steps; ++step) {
      copy_async_wait<kStages - 2>();
      __syncthreads();  // this step's panels are there, and all have done with those that the next copy overwrites
      start(step + kStages - 1);
      add(step);
    }
    copy_async_wait<0>();
    __syncthreads();
  }
};

}  // namespace ds::cuda
