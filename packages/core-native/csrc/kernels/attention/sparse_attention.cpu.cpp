#include "sparse_attention.h"

#include <ranges>

#include "../../runtime/pool.h"
#include "block_tiles.h"
#include "flash_forward.h"
#include "sparse_heads.h"

namespace ds::DS_ISA {
namespace {

template <class T>
class SparseForward {
 public:
  explicit SparseForward(const SparseAttention& op)
      : op_(op), heads_(op), s_(heads_.s), tiles_(op.layout, By::rows, op.causal, kStrip, kKeyBlock) {}

  void run() {
    heads_.template fill_norms<T>();
    auto chunks = tiles_.longest_first(s_.B, s_.H);
    parallel_for(int64_t(chunks.size()), [&](int64_t i) { strip(chunks[size_t(i)].head, chunks[size_t(i)].strip); });
  }

 private:
  void strip(int64_t bh, int64_t number) const {
    int64_t b = bh / s_.H, h = bh % s_.H, D = s_.D, ld = round_up(D, kLanes);
    int64_t first = number * tiles_.strip_tokens(), n = std::min(tiles_.strip_tokens(), s_.T - first);
    auto key = head_rows<const T>(op_.qkv, s_, b, h, 1), value = head_rows<const T>(op_.qkv, s_, b, h, 2);
    Sight sight = heads_.sight(bh);
    auto keep = heads_.keep(bh);
    auto w = in_scratch<ForwardBlocks>(D);
    Strip& strip = w.strips[0];
    strip.start(head_rows<const T>(op_.qkv, s_, b, h, 0), first, n, 0, D, float(op_.scale) * kLog2E, sight, w.rows);
    Fetched fetched;
    // The newest first: with ALiBi they hold the largest scores, which make the far ones negligible. As tiles go back,
    // one that is fetched already begins where the last one did.
    for (const Tile& tile : std::views::reverse(tiles_.of(op_.layout.layout_of(h), number))) {
      Strip part = strip.part(tile.from, tile.width);
      if (heads_.may_skip(part, sight, bh, tile.first, tile.n)) continue;
      if (!fetched.holds(tile.first, tile.n)) {
        fetched = {tile.first, tile.n};
        pack_rows(key, tile.first, tile.n, D, w.k, ld);
        pack_rows(value, tile.first, tile.n, D, w.v, D);
      }
      attend(part, sight, tile.first, tile.n, D, {w.k, round_up(D, kLanes), 1}, w.v, w.scores, keep ? &*keep : nullptr);
    }
    finish(strip, D, float(1 / (1 - op_.dropout)), out_rows<T>(op_.out, s_, b, h), first,
           op_.lse.as<float>() + bh * s_.T + first, w.rows);
  }

  const SparseAttention& op_;
  SparseHeads<SparseAttention> heads_;
  AttentionShape s_;
  BlockTiles tiles_;
};

}  // namespace

void sparse_attention(const SparseAttention& op) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { SparseForward<T>(op).run(); });
}

}  // namespace ds::DS_ISA
