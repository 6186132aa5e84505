// Which block of a paged pass does what. Lengths are on the device only, so it plans itself: the host gives bounds.
//
// Few: a sequence of up to kFewTokens rows. Its rows of a key-value head go 16 at a time (a tile), and the tokens that
// they see are cut into parts of `span`, such that all sequences together make about kUnits units of equal size.
// Many: the other sequences, in blocks of rows.
#pragma once
#include "paged_attention.h"
#include "paged_tile.cuh"

namespace ds::cuda {

constexpr int kFewTokens = 16, kTileRows = 16;
constexpr int kUnits = 512;      // about four a multiprocessor of an H100; the same everywhere, for the order of sums
constexpr int kLeastSpan = 128;  // a part's tokens
constexpr int kSpanStep = 64;
constexpr int kPlanThreads = 256;

struct Plan {
  int32_t* good;        // [S]
  int32_t *few, *many;  // [S + 1]: the first unit of a sequence, and the number of all
  int32_t* span;        // [1]

  static int64_t size(int64_t S) { return 3 * S + 3; }
  Plan(int32_t* data, int64_t S) : good(data), few(good + S), many(few + S + 1), span(many + S + 1) {}
};

// What is the same for all blocks of a pass.
struct PlanShape {
  Rows rows;
  int G, group, many_rows;
  int64_t back;
};

// What a sequence's rows see, and how many units that makes.
struct SequenceUnits {
  int count, from, end;  // rows; tokens

  __device__ SequenceUnits(const PlanShape& shape, const Plan& plan, int s) {
    const Rows& rows = shape.rows;
    int past = rows.past[s];
    count = plan.good[s] ? rows.starts[s + 1] - rows.starts[s] : 0;
    from = past > shape.back ? past - int(shape.back) : 0, end = past + count;
  }
  __device__ bool is_few() const { return count > 0 && count <= kFewTokens; }
  __device__ int tiles(int group) const { return (count * group + kTileRows - 1) / kTileRows; }
  __device__ int parts(int span) const { return (end - 1) / span - from / span + 1; }
  __device__ int few(const PlanShape& shape, int span) const {
    return is_few() ? shape.G * tiles(shape.group) * parts(span) : 0;
  }
  __device__ int many(const PlanShape& shape) const {
    return count > kFewTokens ? shape.G * ((count * shape.group + shape.many_rows - 1) / shape.many_rows) : 0;
  }
};

// The sequence of a unit: `first` [S + 1] rises.
__device__ __forceinline__ int sequence_of_unit(const int32_t* first, int S, int unit) {
  int low = 0, high = S;
  while (low + 1 < high) {
    int middle = (low + high) / 2;
    (first[middle] <= unit ? low : high) = middle;
  }
  return low;
}

// One part of a few sequence's tile.
struct FewUnit {
  int s, g, tile, part, parts;
  int rows, first, end;  // rows of the sequence's head; tokens of the part
  int past;

  __device__ FewUnit(const PlanShape& shape, const Plan& plan, int unit)
      : s(sequence_of_unit(plan.few, shape.rows.S, unit)) {
    SequenceUnits own(shape, plan, s);
    int span = *plan.span, i = unit - plan.few[s], tiles = own.tiles(shape.group);
    parts = own.parts(span), part = i % parts, tile = i / parts % tiles, g = i / parts / tiles;
    int cut = (own.from / span + part) * span;
    first = cut > own.from ? cut : own.from, end = cut + span < own.end ? cut + span : own.end;
    rows = own.count * shape.group, past = shape.rows.past[s];
  }
};

// Exclusive sums of count(s) over the sequences to first [S + 1], by one block.
template <class Count>
__device__ __forceinline__ void scan_sequences(int32_t* first, int S, int32_t* of_warps, Count&& count) {
  int each = (S + kPlanThreads - 1) / kPlanThreads, begin = each * int(threadIdx.x);
  int end = begin + each < S ? begin + each : S, own = 0;
  int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  for (int s = begin; s < end; ++s) own += count(s);
  int upto = own;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    int below = __shfl_up_sync(kAllLanes, upto, unsigned(step));
    if (lane >= step) upto += below;
  }
  if (lane == kWarp - 1) of_warps[warp] = upto;
  __syncthreads();
  int before = upto - own, all = 0;
  for (int w = 0; w < kPlanThreads / kWarp; ++w) {
    if (w < warp) before += of_warps[w];
    all += of_warps[w];
  }
  for (int s = begin; s < end; ++s) {
    first[s] = before;
    before += count(s);
  }
  if (threadIdx.x == 0) first[S] = all;
  __syncthreads();  // `of_warps` is written again
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads) make_plan(PlanShape shape, Plan plan) {
  DS_SHARED(int32_t[kPlanThreads / kWarp], of_warps);
  int S = shape.rows.S;
  int64_t work = 0;  // tokens that units go through
  for (int s = int(threadIdx.x); s < S; s += kThreads) {
    SequenceUnits own(shape, plan, s);
    if (own.is_few()) work += int64_t(own.tiles(shape.group)) * shape.G * (own.end - own.from);
  }
  work = block_reduce<Sum>(work, int(threadIdx.x), kThreads);
  int64_t even = (work + int64_t(kUnits) * kSpanStep - 1) / (int64_t(kUnits) * kSpanStep) * kSpanStep;
  int span = even > kLeastSpan ? int(even) : kLeastSpan;
  if (threadIdx.x == 0) *plan.span = span;
  scan_sequences(plan.few, S, of_warps, [&](int s) { return SequenceUnits(shape, plan, s).few(shape, span); });
  scan_sequences(plan.many, S, of_warps, [&](int s) { return SequenceUnits(shape, plan, s).many(shape); });
}

// No more units than this, whatever the lengths: parts begin at multiples of the span, so a tile has one more than its
// share, and one for where it begins.
inline int64_t most_few_units(const PlanShape& shape) {
  int64_t tiles = shape.rows.S + int64_t(shape.rows.R) * shape.group / kTileRows;
  return kUnits + 2 * tiles * shape.G;
}
inline int64_t most_many_units(const PlanShape& shape) {
  return (shape.rows.S + int64_t(shape.rows.R) * shape.group / shape.many_rows) * shape.G;
}

}  // namespace ds::cuda
