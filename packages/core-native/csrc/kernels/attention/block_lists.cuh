// A block layout on the device: where the blocks of a head stand, and the check that its lists can be trusted.
//
// The lists' contents are in device memory, so what block_layout.h checks on the host is checked by two small kernels
// here, ahead of the op's own. These ask `lists_are_bad` before they read anything by a list. Of several faults any one
// is reported.
#pragma once
#include "block_matmul.h"
#include "check_layout.cuh"

namespace ds::cuda {

constexpr int kListThreads = 256;

struct LayoutLists {
  const int32_t *head_layout, *row_start, *columns, *column_start, *rows, *places;
  int heads, layouts, side, block, total;  // side: N, total: blocks of all layouts
  int64_t blocks;                          // of all heads, as s has them
  int64_t* first;                          // [heads + 1]: where the blocks of each head begin in s; then the verdict
};

__device__ __forceinline__ bool lists_are_bad(const LayoutLists& lists) { return lists.first[lists.heads] != 0; }

// The blocks of a row of blocks of one head, or of a column.
struct Strip {
  const int32_t *others, *places;  // the columns, or the rows with the blocks' places
  int begin, end;
  int64_t first;

  __device__ Strip(const LayoutLists& lists, int64_t bh, int i, bool by_columns) {
    int h = int(bh % lists.heads);
    const int32_t* row_start = lists.row_start + int64_t(lists.head_layout[h]) * (lists.side + 1);
    const int32_t* start = by_columns ? lists.column_start + (row_start - lists.row_start) : row_start;
    others = by_columns ? lists.rows : lists.columns;
    places = by_columns ? lists.places : nullptr;
    begin = start[i], end = start[i + 1];
    first = bh / lists.heads * lists.blocks + lists.first[h] - row_start[0];
  }
  // The number in s of the block at a place of the list.
  __device__ int64_t block(int at) const { return first + (places ? places[at] : at); }
};

// What is wrong with a layout: which of kLayoutRules, or that s has another number of blocks.
constexpr int64_t kOtherBlocks = -1;

template <class Op>
FaultReport layout_fault(CudaContext& context) {
  return context.fault([](const int64_t* numbers) {
    return numbers[0] == kOtherBlocks ? other_blocks(Op::name, numbers[1], numbers[2])
                                      : bad_layout(Op::name, LayoutRule(numbers[0]));
  });
}

// One block of one warp: sums up the heads' blocks.
static __global__ void __launch_bounds__(kWarp) count_blocks(LayoutLists lists, FaultReport report) {
  int lane = int(threadIdx.x);
  int64_t sum = 0;
  bool known = true;
  for (int from = 0; from < lists.heads; from += kWarp) {
    int h = from + lane, p = h < lists.heads ? lists.head_layout[h] : 0;
    bool is_known = p >= 0 && p < lists.layouts;
    int64_t count = 0;
    if (h < lists.heads && is_known) {
      const int32_t* start = lists.row_start + int64_t(p) * (lists.side + 1);
      count = start[lists.side] - start[0];
    }
    int64_t behind = count;
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      int64_t other = __shfl_up_sync(kAllLanes, behind, step);
      if (lane >= step) behind += other;
    }
    if (h < lists.heads) lists.first[h] = sum + behind - count;
    sum += __shfl_sync(kAllLanes, behind, kWarp - 1);
    known = __all_sync(kAllLanes, is_known) && known;
  }
  if (lane != 0) return;
  bool fits = known && sum == lists.blocks;
  lists.first[lists.heads] = !fits;
  if (!known)
    raise_fault(report, int64_t(LayoutRule::heads));
  else if (!fits)
    raise_fault(report, kOtherBlocks, sum, lists.blocks);
}

static __global__ void __launch_bounds__(kListThreads) check_lists(LayoutLists lists, FaultReport report) {
  int first = int(blockIdx.x) * kListThreads + int(threadIdx.x), step = int(gridDim.x) * kListThreads;
  auto refuse = [&](LayoutRule rule) {
    atomicCAS(reinterpret_cast<unsigned*>(lists.first + lists.heads), 0u, 1u);
    raise_fault(report, int64_t(rule));
  };
  int starts = lists.layouts * (lists.side + 1);
  for (int i = first; i < 2 * starts; i += step) {
    bool by_columns = i >= starts;
    check_list(by_columns ? lists.column_start : lists.row_start, by_columns ? lists.rows : lists.columns,
               lists.row_start, by_columns ? lists.places : nullptr, by_columns ? i - starts : i, starts, lists.side,
               lists.total, refuse);
  }
}

// Queues the check, and gives the lists for the op's own kernels. Takes the op's scratch memory.
template <class Op>
LayoutLists checked_lists(const BlockLayout& layout, int64_t blocks, CudaContext& context) {
  auto numbers = [](const Tensor& t) { return t.as<const int32_t>(); };
  LayoutLists lists{numbers(layout.head_layout),
                    numbers(layout.row_start),
                    numbers(layout.columns),
                    numbers(layout.column_start),
                    numbers(layout.rows),
                    numbers(layout.places),
                    int(layout.head_layout.numel()),
                    int(layout.layouts()),
                    int(layout.side()),
                    int(layout.block),
                    int(layout.columns.numel()),
                    blocks,
                    context.scratch<int64_t>(layout.head_layout.numel() + 1)};
  FaultReport report = layout_fault<Op>(context);
  DS_LAUNCH(count_blocks, 1, kWarp, 0, context, lists, report);
  unsigned grid = strided_blocks(2 * layout.row_start.numel(), kListThreads, context, 1);
  DS_LAUNCH(check_lists, grid, kListThreads, 0, context, lists, report);
  return lists;
}

}  // namespace ds::cuda
