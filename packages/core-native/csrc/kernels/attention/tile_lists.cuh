// Which tiles of other rows a block's own rows meet: a range of tokens, or what a block layout lists.
#pragma once
#include "../../cuda/types.cuh"

namespace ds::cuda {

constexpr int kGroup = 16;  // tokens that always stand side by side in a tile

// Tokens from `first` on.
template <int kRows>
struct RangePlace {
  static constexpr int kGroups = kRows / kGroup;
  int first;
  __device__ int start(int group) const { return first + group * kGroup; }
  __device__ int token(int row) const { return first + row; }
  // Bit g: whether the own rows of a warp, from `row` on, meet group g.
  __device__ uint32_t met_by(int, int) const { return (1u << kGroups) - 1; }
};

// Tokens begin .. end - 1, kRows at a time.
template <int kRows>
class RangeTiles {
 public:
  using Place = RangePlace<kRows>;
  __device__ RangeTiles(int begin, int end) : at_(begin), end_(end) {}
  __device__ bool next(Place& place) {
    place.first = at_;
    at_ += kRows;
    return place.first < end_;
  }

 private:
  int at_, end_;
};

// Groups of tokens from anywhere. Those that fill up the last tile stand behind the last token.
template <int kRows>
struct ListedPlace {
  static constexpr int kGroups = kRows / kGroup;
  static_assert(kGroups <= 8);
  int starts[kGroups];
  uint32_t met;  // four bits a group: which blocks of the own rows it meets
  int own_block;

  __device__ int start(int group) const { return starts[group]; }
  // By selection: an index would put the starts into memory.
  __device__ int token(int row) const {
    int s = starts[0];
#pragma unroll
    for (int g = 1; g < kGroups; ++g) s = row / kGroup == g ? starts[g] : s;
    return s + row % kGroup;
  }
  __device__ uint32_t met_by(int first, int row) const {
    int own = (first % own_block + row) / own_block;
    uint32_t by = 0;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) by |= (met >> (4 * g + own) & 1) << g;
    return by;
  }
};

// A block layout by rows or by columns, see block_layout.h: for block r of the own tokens, list[start[r]] ..
// list[start[r + 1] - 1] are the blocks it meets.
struct BlockLists {
  const int32_t *head_layout, *start, *list;
  int layouts, side, block, total;  // side: N, total: Z
};

// The lists of the up to four blocks that the own rows belong to, merged: where one of them meets a block, all fetch
// it, and met_by() tells who uses it. Blocks go through shared memory by windows of kWindow, so that no layout is too
// large.
template <int kRows, int kThreads>
class ListedTiles {
 public:
  using Place = ListedPlace<kRows>;
  static constexpr int kWindow = 512;
  static constexpr int kSharedBytes = (kWindow + 4) * 4;

  // Own tokens first .. first + rows - 1. `past` and `future`: whether tokens before, behind all own ones are never
  // met. Every thread of the block must call it and next().
  __device__ ListedTiles(const BlockLists& lists, int h, int first, int rows, bool past, bool future, uint32_t* shared)
      : lists_(lists), entries_(shared), count_(shared + kWindow), first_(first), past_(past), future_(future) {
    int layout = lists.head_layout[h], own = first / lists.block;
    last_ = first + rows - 1;
    last_ = last_ < lists.side * lists.block ? last_ : lists.side * lists.block - 1;
    bool known = layout >= 0 && layout < lists.layouts;
    for (int r = 0; r < 4; ++r) {
      begin_[r] = end_[r] = 0;
      if (!known || (own + r) * lists.block > last_) continue;
      const int32_t* start = lists.start + int64_t(layout) * (lists.side + 1) + own + r;
      if (start[0] >= 0 && start[1] <= lists.total) begin_[r] = start[0], end_[r] = start[1];
    }
    window_ = past ? own : 0;
    open();
  }

  __device__ bool next(Place& place) {
    constexpr int kGroups = Place::kGroups;
    int per = lists_.block / kGroup;  // groups of a block
    while (true) {
      if (at_ >= groups_) {
        window_ += kWindow;
        if (window_ >= lists_.side || (future_ && window_ * lists_.block > last_)) return false;
        open();
        continue;
      }
      place.met = 0, place.own_block = lists_.block;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        int group = at_ + g;
        bool there = group < groups_;
        uint32_t entry = there ? entries_[group / per] : 0;
        place.starts[g] =
            there ? (window_ + int(entry >> 4)) * lists_.block + group % per * kGroup : lists_.side * lists_.block;
        place.met |= (entry & 15) << 4 * g;
      }
      at_ += kGroups;
      // Parts of a large block on the diagonal.
      if (past_ && place.starts[kGroups - 1] + kGroup <= first_) continue;
      if (future_ && place.starts[0] > last_) continue;
      return true;
    }
  }

 private:
  __device__ int lower_bound(int begin, int end, int value) const {
    while (begin < end) {
      int middle = begin + (end - begin) / 2;
      if (lists_.list[middle] < value)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }

  // Makes entries_[0 .. count) of the window's blocks that are met, in order: (number in the window) * 16 + by whom.
  __device__ void open() {
    __syncthreads();  // the last window is done with
    for (int i = int(threadIdx.x); i < kWindow; i += kThreads) entries_[i] = 0;
    __syncthreads();
    auto* met = reinterpret_cast<uint8_t*>(entries_);  // [kWindow, 4]: a byte for each pair, written by one thread
    for (int r = 0; r < 4; ++r) {
      int begin = window_ == 0 ? begin_[r] : lower_bound(begin_[r], end_[r], window_);
      for (int at = begin + int(threadIdx.x); at < end_[r]; at += kThreads) {
        int c = lists_.list[at];
        if (c >= window_ + kWindow || c >= lists_.side || (future_ && c * lists_.block > last_)) break;
        if (c >= window_) met[(c - window_) * 4 + r] = 1;
      }
    }
    __syncthreads();
    if (threadIdx.x < kWarp) {
      int count = 0, lane = int(threadIdx.x);
      for (int i = 0; i < kWindow; i += kWarp) {
        uint32_t bytes = entries_[i + lane];
        uint32_t by = (bytes & 1) | (bytes >> 7 & 2) | (bytes >> 14 & 4) | (bytes >> 21 & 8);
        uint32_t there = __ballot_sync(kAllLanes, by != 0);  // and all lanes have read
        if (by != 0) entries_[count + __popc(there & ((1u << lane) - 1))] = uint32_t(i + lane) << 4 | by;
        count += __popc(there);
        __syncwarp();
      }
      if (lane == 0) *count_ = uint32_t(count);
    }
    __syncthreads();
    groups_ = int(*count_) * (lists_.block / kGroup);
    at_ = 0;
  }

  BlockLists lists_;
  uint32_t *entries_, *count_;
  int first_, last_, window_, at_ = 0, groups_ = 0;
  bool past_, future_;
  int begin_[4], end_[4];
};

}  // namespace ds::cuda
