// The two passes of paged attention on the device.
//
// Few: a warp takes every kWarps-th tile of 16 tokens of the part for all 16 rows, through stages of its own, so that
// no warp waits for another; at the end the block puts the warps' sums together, and where a tile has several parts a
// second kernel those, in their order. Bound by reading keys and values once: two or three tiles a warp are on their
// way (64 to 100 KiB a multiprocessor), and the products are a few per cent of the tensor cores even where 15 of the 16
// rows are empty.
// Many: a block's warps have rows of their own, and share the tiles in two stages. Bound by the tensor cores and by
// reading fragments from shared memory, as flash_forward.
#pragma once
#include "paged_plan.cuh"

namespace ds::cuda {

template <class T, class K>
struct PagedPass {
  T* out;
  const T* q;
  PagesOf<K> pages;
  PlanShape shape;
  Plan plan;
  const float* slopes;
  float* parts;  // [units, kTileRows, D + 2]: sums, then the largest score and the total
  int heads;
  float scale;        // in units of log 2
  bool aligned_rows;  // 16-byte accesses to q and out
  bool aligned;       // and to pages

  __device__ int64_t row_offset(int s, int g) const {
    return (int64_t(shape.rows.starts[s]) * heads + g * shape.group) * pages.D;
  }
  __device__ GroupRows<const T> queries(int s, int g) const {
    return {q + row_offset(s, g), int64_t(heads) * pages.D, pages.D, shape.group};
  }
  __device__ GroupRows<T> outputs(int s, int g) const {
    return {out + row_offset(s, g), int64_t(heads) * pages.D, pages.D, shape.group};
  }
  // Of a warp's rows from `first` on, of `rows` that the sequence has.
  template <int kM>
  __device__ RowSight<kM> sight(int past, int g, int first, int rows) const {
    RowSight<kM> sight;
    int last = first + kM * 16 - 1;
    sight.scale = scale, sight.biased = slopes != nullptr;
    sight.back = int(shape.back < (1 << 30) ? shape.back : (1 << 30));
    sight.first_place = past + first / shape.group;
    sight.last_from = past + (last < rows ? last : rows - 1) / shape.group - sight.back;
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int row = first + m * 16 + half * 8 + int(threadIdx.x) % kWarp / 4;
        row = row < rows ? row : rows - 1;
        sight.place[m][half] = past + row / shape.group;
        sight.slope[m][half] = slopes ? slopes[g * shape.group + row % shape.group] * kLog2E : 0.0f;
      }
    return sight;
  }
  __device__ TokenRange range(int s, int g, int from, int end) const {
    return {shape.rows.table + int64_t(s) * shape.rows.M, g, from, end};
  }
};

template <class T, class K, int kDim>
struct FewCut {
  static constexpr int kD = kDim, kTileBytes = TokenTile<K, kD>::kBytes, kQueryBytes = kTileRows * kD * int(sizeof(T));
  static constexpr int kWarps = kQueryBytes + 8 * kTileBytes <= (200 << 10) ? 4 : 2, kThreads = kWarps * kWarp;
  static constexpr int kStages = kQueryBytes + 3 * kWarps * kTileBytes <= (110 << 10) ? 3 : 2;
  static constexpr int kSharedBytes = kQueryBytes + kStages * kWarps * kTileBytes;
  static constexpr int kBlocks = kD <= 128 && kSharedBytes <= (110 << 10) ? 2 : 1;  // on a multiprocessor
  static constexpr int kSumRow = kD + 2;  // of a warp's sums, when they are put together
  static_assert(kWarps * kTileRows * kSumRow * 4 <= kStages * kWarps * kTileBytes);
};

// Puts the sums of a block's warps together, and writes them to the outputs or as a part.
template <class Cut, class T, class K>
__device__ void join_warps(const PagedPass<T, K>& op, const FewUnit& unit, int64_t slot, const float* all) {
  int D = op.pages.D;
  GroupRows<T> out = op.outputs(unit.s, unit.g);
  for (int i = int(threadIdx.x); i < kTileRows * D; i += Cut::kThreads) {
    int r = i / D, d = i % D, row = unit.tile * kTileRows + r;
    if (row >= unit.rows) break;
    const float* own = all + r * Cut::kSumRow;
    constexpr int kNext = kTileRows * Cut::kSumRow;
    float largest = -INFINITY, sum = 0, total = 0;
#pragma unroll
    for (int w = 0; w < Cut::kWarps; ++w) largest = Max()(own[w * kNext + Cut::kD], largest);
    float base = largest == -INFINITY ? 0 : largest;
#pragma unroll
    for (int w = 0; w < Cut::kWarps; ++w) {
      float weight = exp2_fast(own[w * kNext + Cut::kD] - base);
      sum = fmaf(own[w * kNext + d], weight, sum);
      total = fmaf(own[w * kNext + Cut::kD + 1], weight, total);
    }
    if (unit.parts == 1) {
      out.row(row)[d] = from_f32<T>(total == 0 ? 0 : sum / total);
      continue;
    }
    float* part = op.parts + (slot * kTileRows + r) * (D + 2);
    part[d] = sum;
    if (d == 0) part[D] = largest, part[D + 1] = total;
  }
}

template <class T, class K, class Cut>
__global__ void __launch_bounds__(Cut::kThreads, Cut::kBlocks) attend_few(PagedPass<T, K> op) {
  constexpr int kD = Cut::kD, kStages = Cut::kStages;
  using Tile = TokenTile<K, kD>;
  DS_DYN_SHARED(unsigned char, shared);
  SharedRows<T, kD> queries{reinterpret_cast<T*>(shared)};
  int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  unsigned char* stages = shared + Cut::kQueryBytes + warp * kStages * Cut::kTileBytes;
  int units = op.plan.few[op.shape.rows.S];
  for (int number = int(blockIdx.x); number < units; number += int(gridDim.x)) {
    FewUnit unit(op.shape, op.plan, number);
    TokenRange range = op.range(unit.s, unit.g, unit.first, unit.end);
    fetch_rows<kTileRows, Cut::kThreads>(queries, op.queries(unit.s, unit.g), unit.rows, op.pages.D, op.aligned_rows,
                                         [&](int r) { return unit.tile * kTileRows + r; });
    copy_async_commit();
    int first = unit.first / kTokens * kTokens + warp * kTokens;
    auto fetch = [&](int i) {
      int token = first + i * Cut::kWarps * kTokens;
      if (token < unit.end)
        fetch_tokens<kWarp>(Tile{stages + i % kStages * Cut::kTileBytes}, op.pages, range, token, lane, op.aligned);
      copy_async_commit();
    };
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) fetch(i);
    copy_async_wait<kStages - 1>();
    __syncthreads();  // the queries are there

    Sums<1, kD / 8> sums;
    Softmax<1> softmax;
    RowSight<1> sight = op.template sight<1>(unit.past, unit.g, unit.tile * kTileRows, unit.rows);
    for (int i = 0, token = first; token < unit.end; ++i, token += Cut::kWarps * kTokens) {
      copy_async_wait<kStages - 2>();
      __syncwarp();  // the tile is there, and nobody reads the one before any more
      fetch(i + kStages - 1);
      take_tokens<1, T, K, kD>(sums, softmax, sight, queries, 0, stages + i % kStages * Cut::kTileBytes, token);
    }
    softmax.finish();
    copy_async_wait<0>();
    __syncthreads();  // nobody reads the stages any more
    auto* all = reinterpret_cast<float*>(shared + Cut::kQueryBytes);
    float* own = all + warp * kTileRows * Cut::kSumRow;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* row = own + (g + half * 8) * Cut::kSumRow;
#pragma unroll
      for (int n = 0; n < kD / 8; ++n) {
        row[n * 8 + 2 * t] = sums.at[0][n][2 * half];
        row[n * 8 + 2 * t + 1] = sums.at[0][n][2 * half + 1];
      }
      if (t == 0) row[kD] = softmax.largest[0][half], row[kD + 1] = softmax.total[0][half];
    }
    __syncthreads();
    join_warps<Cut>(op, unit, number, all);
    __syncthreads();  // the next unit writes everything again
  }
}

constexpr int kJoinWarps = 8, kJoinThreads = kJoinWarps * kWarp;
constexpr int kMostParts = kUnits + 2;

// Puts the parts of a tile's rows together, in their order. The blocks of a tile's parts share its rows.
template <class T, class K>
__global__ void __launch_bounds__(kJoinThreads) join_parts(PagedPass<T, K> op) {
  DS_SHARED(float[kMostParts], weights);
  DS_SHARED(float[kJoinWarps][kMostHeadSize], by_warp);
  int D = op.pages.D, rank = int(threadIdx.x), warp = rank / kWarp, lane = rank % kWarp;
  int units = op.plan.few[op.shape.rows.S];
  for (int number = int(blockIdx.x); number < units; number += int(gridDim.x)) {
    FewUnit unit(op.shape, op.plan, number);
    if (unit.parts == 1) continue;
    for (int r = unit.part; r < kTileRows && unit.tile * kTileRows + r < unit.rows; r += unit.parts) {
      int64_t next = int64_t(kTileRows) * (D + 2);
      const float* own = op.parts + (number - unit.part) * next + r * (D + 2);
      float largest = -INFINITY, total = 0;
      for (int p = rank; p < unit.parts; p += kJoinThreads) largest = Max()(own[p * next + D], largest);
      largest = block_reduce<Max>(largest, rank, kJoinThreads);
      float base = largest == -INFINITY ? 0 : largest;
      for (int p = rank; p < unit.parts; p += kJoinThreads) {
        weights[p] = exp2_fast(own[p * next + D] - base);
        total = fmaf(own[p * next + D + 1], weights[p], total);
      }
      total = block_reduce<Sum>(total, rank, kJoinThreads);  // its barriers show the weights, too
      for (int d = lane; d < D; d += kWarp) {
        float sum = 0;
#pragma unroll 4
        for (int p = warp; p < unit.parts; p += kJoinWarps) sum = fmaf(own[p * next + d], weights[p], sum);
        by_warp[warp][d] = sum;
      }
      __syncthreads();
      T* out = op.outputs(unit.s, unit.g).row(unit.tile * kTileRows + r);
      for (int d = rank; d < D; d += kJoinThreads) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kJoinWarps; ++w) sum += by_warp[w][d];
        out[d] = from_f32<T>(total == 0 ? 0 : sum / total);
      }
      __syncthreads();  // the next row writes the shared memory again
    }
  }
}

template <class T, class K, int kDim>
struct ManyCut {
  static constexpr int kD = kDim, kWarps = 4, kThreads = kWarps * kWarp;
  // Bytes are converted in registers, which leaves none for a second sixteen of wide rows.
  static constexpr int kM = sizeof(T) == 2 && (kD <= 64 || (kD <= 128 && sizeof(K) == 2)) ? 2 : 1;
  static constexpr int kRows = kWarps * kM * 16;
  static constexpr int kTiles = kD <= 64 ? 4 : kD <= 128 || sizeof(T) == 2 ? 2 : 1;  // of a stage
  // Whose scores are held at once: what the registers allow beside the sums.
  static constexpr int kTaken = kM == 1 ? kTiles : kD > 64 ? 1 : sizeof(K) == 1 ? 2 : kTiles;
  static constexpr int kStageBytes = kTiles * TokenTile<K, kD>::kBytes, kQueryBytes = kRows * kD * int(sizeof(T));
  static constexpr int kSharedBytes = kQueryBytes + 2 * kStageBytes;
  static constexpr int kBlocks = kD <= 128 && kSharedBytes <= (110 << 10) ? 2 : 1;
};

template <class T, class K, class Cut>
__global__ void __launch_bounds__(Cut::kThreads, Cut::kBlocks) attend_many(PagedPass<T, K> op) {
  constexpr int kD = Cut::kD, kM = Cut::kM, kStep = Cut::kTiles * kTokens;
  using Tile = TokenTile<K, kD>;
  DS_DYN_SHARED(unsigned char, shared);
  SharedRows<T, kD> queries{reinterpret_cast<T*>(shared)};
  unsigned char* stages = shared + Cut::kQueryBytes;
  int number = int(blockIdx.x);
  if (number >= op.plan.many[op.shape.rows.S]) return;
  int s = sequence_of_unit(op.plan.many, op.shape.rows.S, number);
  SequenceUnits own(op.shape, op.plan, s);
  int rows = own.count * op.shape.group, past = op.shape.rows.past[s], G = op.shape.G;
  int i = number - op.plan.many[s], blocks = (rows + Cut::kRows - 1) / Cut::kRows, g = i % G;
  // Heads side by side, and the last rows first: they see the most.
  int first_row = (blocks - 1 - i / G) * Cut::kRows, row = int(threadIdx.x) / kWarp * kM * 16;
  int last_row = first_row + Cut::kRows < rows ? first_row + Cut::kRows - 1 : rows - 1;
  int end = past + last_row / op.shape.group + 1, earliest = past + first_row / op.shape.group;
  int from = earliest > op.shape.back ? earliest - int(op.shape.back) : 0;
  TokenRange range = op.range(s, g, from, end);
  auto fetch = [&](int token, int stage) {
#pragma unroll 1
    for (int k = 0; k < Cut::kTiles; ++k)
      fetch_tokens<Cut::kThreads>(Tile{stages + stage * Cut::kStageBytes + k * Tile::kBytes}, op.pages, range,
                                  token + k * kTokens, int(threadIdx.x), op.aligned);
    copy_async_commit();
  };
  fetch_rows<Cut::kRows, Cut::kThreads>(queries, op.queries(s, g), rows, op.pages.D, op.aligned_rows,
                                        [&](int r) { return first_row + r; });
  int token = from / kStep * kStep;
  fetch(token, 0);

  Sums<kM, kD / 8> sums;
  Softmax<kM> softmax;
  RowSight<kM> sight = op.template sight<kM>(past, g, first_row + row, rows);
  int last_place = past + (first_row + row + kM * 16 - 1) / op.shape.group;
  for (int stage = 0; token < end; token += kStep, stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // the stage is there, and nobody reads the other any more
    if (token + kStep < end) fetch(token + kStep, stage ^ 1);
    if (token > last_place || token + kStep <= sight.first_place - sight.back) continue;
#pragma unroll 1
    for (int k = 0; k < Cut::kTiles; k += Cut::kTaken)
      take_tokens<Cut::kTaken, T, K, kD>(sums, softmax, sight, queries, row,
                                         stages + stage * Cut::kStageBytes + k * Tile::kBytes, token + k * kTokens);
  }
  softmax.finish();
  float factor[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) factor[m][half] = softmax.total[m][half] == 0 ? 0 : 1 / softmax.total[m][half];
  write_rows<T, kD, kM>(sums, factor, queries, row, op.outputs(s, g), first_row + row, rows, op.pages.D,
                        op.aligned_rows);
}

}  // namespace ds::cuda
