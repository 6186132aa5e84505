// BlockLayout::validate() on the device, where the lists' contents are.
#pragma once
#include "../../cuda/types.cuh"
#include "block_layout.h"

namespace ds::cuda {

enum class LayoutRule : int64_t { known, rising, ascending, inside };

// What validate() checks of heads, starts, lists and places, a number a thread. Passes read no more than these
// numbers allow even where a rule is broken.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    find_layout_fault(const int32_t* head_layout, int heads, int layouts, const int32_t* starts, const int32_t* list,
                      const int32_t* places, int side, int total, FaultReport report) {
  int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, count = int64_t(layouts) * (side + 1);
  if (i < heads && (head_layout[i] < 0 || head_layout[i] >= layouts)) raise_fault(report, int64_t(LayoutRule::known));
  if (i < total && (places[i] < 0 || places[i] >= total)) raise_fault(report, int64_t(LayoutRule::inside));
  if (i >= count) return;
  int from = starts[i], to = i + 1 < count ? starts[i + 1] : total;
  if (from < 0 || from > to || to > total) return raise_fault(report, int64_t(LayoutRule::rising));
  if (i % (side + 1) == side) return;
  for (int at = from; at < to; ++at)
    if (list[at] < (at > from ? list[at - 1] + 1 : 0) || list[at] >= side)
      return raise_fault(report, int64_t(LayoutRule::ascending));
}

inline void check_layout(const BlockLayout& l, CudaContext& context) {
  FaultReport report = context.fault([](const int64_t* numbers) {
    const char* wants[] = {"a known layout for every head", "rising starts", "lists that ascend inside the sequence",
                           "places inside the list"};
    return Error("SHAPE", "block layout", "a block layout with " + std::string(wants[numbers[0]]), "another one",
                 "make it with BlockLayout, which sorts and counts");
  });
  int64_t heads = l.head_layout.numel(), total = l.columns.numel();
  int64_t count = std::max({heads, total, l.layouts() * (l.side() + 1)});
  for (auto [starts, list] : {std::pair{&l.row_start, &l.columns}, {&l.column_start, &l.rows}})
    DS_LAUNCH(find_layout_fault<256>, unsigned((count + 255) / 256), 256, 0, context, l.head_layout.as<const int32_t>(),
              int(heads), int(l.layouts()), starts->as<const int32_t>(), list->as<const int32_t>(),
              l.places.as<const int32_t>(), int(l.side()), int(total), report);
}

}  // namespace ds::cuda
