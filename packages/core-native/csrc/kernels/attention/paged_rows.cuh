// A batch's rows and its sequences' pages on the device, and the check of their numbers.
#pragma once
#include "../../cuda/reduce.cuh"
#include "../../cuda/types.cuh"
#include "paged_pages.h"

namespace ds::cuda {

__device__ __forceinline__ float to_f32(int8_t x) { return float(x); }

struct Rows {
  const int32_t *starts, *past, *table;
  int R, S, M, longest;

  // The last sequence that starts at or before the row.
  __device__ int sequence_of(int row) const {
    int low = 0, high = S;
    while (low + 1 < high) {
      int middle = (low + high) / 2;
      (starts[middle] <= row ? low : high) = middle;
    }
    return low;
  }
  __device__ int page_of(int s, int i) const { return table[int64_t(s) * M + i]; }
};

template <class K>
struct PagesOf {
  K *keys, *values;
  float *key_scales, *value_scales;
  int heads, D, page;

  // Where a head's part of a page begins, in tokens.
  __device__ int64_t head(int id, int g) const { return (int64_t(id) * heads + g) * page; }
};

inline Rows rows_of(const PagedRows& rows, int64_t R) {
  auto numbers = [](const Tensor& t) { return t.as<const int32_t>(); };
  return {numbers(rows.starts),  numbers(rows.past), numbers(rows.pages), int(R),
          int(rows.sequences()), int(rows.table()),  int(rows.longest)};
}

template <class K>
PagesOf<K> pages_of(const PagedKeyValues& kv) {
  return {kv.keys.as<K>(),
          kv.values.as<K>(),
          kv.key_scales ? kv.key_scales.as<float>() : nullptr,
          kv.value_scales ? kv.value_scales.as<float>() : nullptr,
          int(kv.heads()),
          int(kv.size()),
          int(kv.page())};
}

// PagedRows::validate() on the device: a warp a sequence. good[s]: whether a pass may look at the sequence; none is
// where the starts are not what they must be.
template <int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp)
    find_row_fault(Rows rows, int page, int pages, int64_t back, int64_t positions, int32_t* good, FaultReport report) {
  int lane = int(threadIdx.x) % kWarp;
  int s = int(blockIdx.x) * kWarps + int(threadIdx.x) / kWarp;
  auto refuse = [&](RowRule rule, int64_t got, int64_t limit) {
    if (lane == 0) raise_fault(report, int64_t(rule), s, got, limit);
    return false;
  };
  // Every warp looks at all starts: a wrong one anywhere makes every row's sequence a guess.
  int wrong = rows.S + 1;
  for (int i = lane; i <= rows.S; i += kWarp)
    if (i == 0 ? rows.starts[0] != 0 : rows.starts[i] < rows.starts[i - 1]) wrong = wrong < i ? wrong : i;
  if (rows.starts[rows.S] != rows.R && wrong > rows.S) wrong = rows.S;
#pragma unroll
  for (int flip = kWarp / 2; flip > 0; flip /= 2) {
    int other = __shfl_xor_sync(kAllLanes, wrong, flip);
    wrong = other < wrong ? other : wrong;
  }
  bool fine = wrong > rows.S;
  if (!fine && s == 0 && lane == 0)
    raise_fault(report, int64_t(RowRule::starts), wrong > 0 ? wrong - 1 : 0, rows.starts[wrong], rows.R);
  if (s >= rows.S) return;
  int n = fine ? rows.starts[s + 1] - rows.starts[s] : 0;
  int64_t past = rows.past[s], end = past + n, room = int64_t(rows.M) * page;
  if (fine && n > rows.longest) fine = refuse(RowRule::longest, n, rows.longest);
  if (fine && (past < 0 || end > room)) fine = refuse(RowRule::past, past < 0 ? past : end, room);
  if (fine && n > 0 && positions >= 0 && end > positions) fine = refuse(RowRule::position, end - 1, positions);
  if (fine && n > 0) {
    int64_t first = past > back ? (past - back) / page : 0;
    for (int64_t i = first + lane; i <= (end - 1) / page; i += kWarp) {
      int id = rows.page_of(s, int(i));
      if (id >= 0 && id < pages) continue;
      raise_fault(report, int64_t(RowRule::page), s, id, pages);
      fine = false;
    }
  }
  fine = __ballot_sync(kAllLanes, fine) == kAllLanes;
  if (lane == 0) good[s] = fine;
}

// positions: rows of a rotary table, -1 for none. Runs for a batch of no sequences too: its starts may be wrong.
template <class Op>
void check_rows(const Rows& rows, const PagedKeyValues& kv, int64_t back, int64_t positions, int32_t* good,
                CudaContext& context) {
  constexpr int kWarps = 8;
  FaultReport report = context.fault([](const int64_t* numbers) {
    return bad_rows(Op::name, RowRule(numbers[0]), numbers[1], numbers[2], numbers[3]);
  });
  DS_LAUNCH(find_row_fault<kWarps>, unsigned(rows.S / kWarps + 1), kWarps * kWarp, 0, context, rows, int(kv.page()),
            int(kv.pages()), back, positions, good, report);
}

}  // namespace ds::cuda
