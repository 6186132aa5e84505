// A layout of blocks as rectangles that the kernels work on. A strip of own tokens (queries by rows, keys by columns)
// meets tiles of other tokens: adjacent blocks are merged where the same own blocks meet them.
#pragma once
#include <span>
#include <vector>

#include "block_layout.h"

namespace ds::DS_ISA {

// The tokens that one strip or tile takes of blocks of `block` tokens: whole blocks, or an even part of a block.
inline int64_t piece_tokens(int64_t block, int64_t limit) {
  if (block <= limit) return limit / block * block;
  while (block > limit) block /= 2;
  return block;
}

// Other tokens first .. first + n - 1 for the own tokens from .. from + width - 1 of a strip.
struct Tile {
  int32_t first, n, from, width;
};

enum class By { rows, columns };

class BlockTiles {
 public:
  // Strips of at most `own` tokens, tiles of at most `other`. Where `causal`, tiles wholly in the future are left out.
  BlockTiles(const BlockLayout& layout, By by, bool causal, int64_t own, int64_t other)
      : layout_(layout),
        by_(by),
        causal_(causal),
        strip_(piece_tokens(layout.block, own)),
        tile_(piece_tokens(layout.block, other)) {
    int64_t T = layout.side() * layout.block;
    strips_ = (T + strip_ - 1) / strip_;
    for (int64_t p = 0; p < layout.layouts(); ++p)
      for (int64_t s = 0; s < strips_; ++s) add_strip(p, s * strip_, std::min(T, (s + 1) * strip_));
    begins_.push_back(tiles_.size());
  }

  int64_t strip_tokens() const { return strip_; }
  int64_t strips() const { return strips_; }
  std::span<const Tile> of(int64_t layout, int64_t strip) const {
    size_t at = size_t(layout * strips_ + strip);
    return std::span(tiles_).subspan(begins_[at], begins_[at + 1] - begins_[at]);
  }

  struct Chunk {
    int64_t head, strip;
  };
  // The strips of B * H heads, those with most pairs of tokens first, so that none is left for one thread to finish.
  std::vector<Chunk> longest_first(int64_t B, int64_t H) const {
    std::vector<int64_t> work;  // [P, strips]
    for (size_t i = 0; i + 1 < begins_.size(); ++i) {
      work.push_back(0);
      for (size_t t = begins_[i]; t < begins_[i + 1]; ++t) work.back() += int64_t(tiles_[t].n) * tiles_[t].width;
    }
    std::vector<Chunk> chunks;
    for (int64_t s = 0; s < strips_; ++s)
      for (int64_t bh = 0; bh < B * H; ++bh) chunks.push_back({bh, s});
    auto work_of = [&](const Chunk& c) { return work[size_t(layout_.layout_of(c.head % H) * strips_ + c.strip)]; };
    std::stable_sort(chunks.begin(), chunks.end(),
                     [&](const Chunk& a, const Chunk& b) { return work_of(a) > work_of(b); });
    return chunks;
  }

 private:
  std::span<const int32_t> list(int64_t p, int64_t i) const {
    const int32_t* range = by_ == By::rows ? layout_.row_range(p, i) : layout_.column_range(p, i);
    const Tensor& all = by_ == By::rows ? layout_.columns : layout_.rows;
    return {all.as<int32_t>() + range[0], size_t(range[1] - range[0])};
  }

  // Walks the lists of the strip's blocks side by side.
  void add_strip(int64_t p, int64_t first, int64_t end) {
    begins_.push_back(tiles_.size());
    int64_t b = layout_.block, own = first / b, count = (end - 1) / b - own + 1;
    std::vector<std::span<const int32_t>> lists;
    for (int64_t i = 0; i < count; ++i) lists.push_back(list(p, own + i));
    auto next = [&] {
      int32_t nearest = INT32_MAX;
      for (auto& l : lists)
        if (!l.empty()) nearest = std::min(nearest, l.front());
      return nearest;
    };
    for (int32_t other = next(); other != INT32_MAX; other = next()) {
      int64_t from = -1;
      for (int64_t i = 0; i <= count; ++i) {
        bool meets = i < count && !lists[size_t(i)].empty() && lists[size_t(i)].front() == other;
        if (meets) lists[size_t(i)] = lists[size_t(i)].subspan(1);
        if (meets && from < 0) from = i;
        if (!meets && from >= 0) {
          add_block(first, other * b, std::max(first, (own + from) * b) - first, std::min(end, (own + i) * b) - first);
          from = -1;
        }
      }
    }
    std::stable_sort(tiles_.begin() + int64_t(begins_.back()), tiles_.end(),
                     [](const Tile& a, const Tile& b) { return a.first < b.first; });
  }

  // The other block at token `other` for the own tokens from .. to - 1 of the strip at `first`.
  void add_block(int64_t first, int64_t other, int64_t from, int64_t to) {
    int64_t step = std::min(tile_, layout_.block);
    for (int64_t at = other; at < other + layout_.block; at += step) {
      bool future = by_ == By::rows ? at >= first + to : at + step <= first + from;
      if (causal_ && future) continue;
      if (Tile* open = open_tile(at, from, to - from); open && open->n + step <= tile_)
        open->n += int32_t(step);
      else
        tiles_.push_back({int32_t(at), int32_t(step), int32_t(from), int32_t(to - from)});
    }
  }

  // The tile of the same own tokens that ends where `at` begins.
  Tile* open_tile(int64_t at, int64_t from, int64_t width) {
    for (size_t i = tiles_.size(); i > begins_.back(); --i) {
      Tile& t = tiles_[i - 1];
      if (t.from == from && t.width == width) return t.first + t.n == at ? &t : nullptr;
    }
    return nullptr;
  }

  const BlockLayout& layout_;
  By by_;
  bool causal_;
  int64_t strip_, tile_, strips_;
  std::vector<Tile> tiles_;
  std::vector<size_t> begins_;  // [P * strips + 1]
};

}  // namespace ds::DS_ISA
