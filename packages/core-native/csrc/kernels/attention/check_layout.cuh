// BlockLayout::validate() on the device, where the lists' contents are.
#pragma once
#include "../../cuda/types.cuh"
#include "block_layout.h"

namespace ds::cuda {

// Calls refuse(rule) where number `i` of the starts, or the list behind it, breaks a rule. `places` is null for the
// lists by rows.
template <class Refuse>
__device__ __forceinline__ void check_list(const int32_t* starts, const int32_t* list, const int32_t* row_start,
                                           const int32_t* places, int64_t i, int64_t count, int side, int total,
                                           Refuse&& refuse) {
  int from = starts[i], to = i + 1 < count ? starts[i + 1] : total;
  if (from < 0 || from > to || to > total) return refuse(LayoutRule::starts);
  if (i % (side + 1) == side) return;
  const int32_t* own = row_start + i / (side + 1) * (side + 1);  // of the layout
  for (int at = from, last = -1; at < to; last = list[at++]) {
    if (list[at] <= last || list[at] >= side) return refuse(LayoutRule::lists);
    if (places && (places[at] < own[0] || places[at] >= own[side])) return refuse(LayoutRule::places);
  }
}

// A head and a start a thread. Passes read no more than the starts allow even where a rule is broken.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    find_layout_fault(const int32_t* head_layout, int heads, int layouts, const int32_t* starts, const int32_t* list,
                      const int32_t* row_start, const int32_t* places, int side, int total, FaultReport report) {
  int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, count = int64_t(layouts) * (side + 1);
  auto refuse = [&](LayoutRule rule) { raise_fault(report, int64_t(rule)); };
  if (i < heads && (head_layout[i] < 0 || head_layout[i] >= layouts)) refuse(LayoutRule::heads);
  if (i < count) check_list(starts, list, row_start, places, i, count, side, total, refuse);
}

template <class Op>
void check_layout(const Op& op, CudaContext& context) {
  const BlockLayout& l = op.layout;
  FaultReport report =
      context.fault([](const int64_t* numbers) { return bad_layout(Op::name, LayoutRule(numbers[0])); });
  auto numbers = [](const Tensor& t) { return t.as<const int32_t>(); };
  int64_t heads = l.head_layout.numel(), count = std::max(heads, l.layouts() * (l.side() + 1));
  for (bool by_columns : {false, true})
    DS_LAUNCH(find_layout_fault<256>, unsigned((count + 255) / 256), 256, 0, context, numbers(l.head_layout),
              int(heads), int(l.layouts()), numbers(by_columns ? l.column_start : l.row_start),
              numbers(by_columns ? l.rows : l.columns), numbers(l.row_start),
              by_columns ? numbers(l.places) : static_cast<const int32_t*>(nullptr), int(l.side()),
              int(l.columns.numel()), report);
}

}  // namespace ds::cuda
