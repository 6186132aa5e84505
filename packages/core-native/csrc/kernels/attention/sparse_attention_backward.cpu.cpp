// The backward pass of block-sparse attention: strips of queries gather dq over the columns of the layout, then strips
// of keys gather dk and dv over its rows. Scores are computed in both, which is cheaper than to bring partial sums
// together.
#include "../../runtime/pool.h"
#include "block_tiles.h"
#include "flash_backward.h"
#include "sparse_attention.h"
#include "sparse_heads.h"

namespace ds::DS_ISA {
namespace {

// The blocks of one thread. `ld`: D rounded up to whole vectors.
struct SparseBlocks {
  GradientStrip strip;
  float *k, *v;    // [kKeyBlock, ld]
  float *dk, *dv;  // [kKeyBlock, ld]
  float* dq;       // [kStrip, ld]
  float *p, *ds;   // [kKeyBlock, width]

  SparseBlocks(Pieces& pieces, int64_t ld) : strip(pieces, ld) {
    for (float** array : {&k, &v, &dk, &dv}) *array = pieces.take(kKeyBlock * ld);
    dq = pieces.take(kStrip * ld);
    for (float** array : {&p, &ds}) *array = pieces.take(kKeyBlock * kStrip);
  }
};

template <class T>
class SparseBackward {
 public:
  explicit SparseBackward(const SparseAttentionBackward& op)
      : op_(op), heads_(op), s_(heads_.s), ld_(round_up(s_.D, kLanes)), queries_(op, heads_.norms) {}

  void run() {
    heads_.template fill_norms<T>();
    queries_.prepare();
    BlockTiles by_rows(op_.layout, By::rows, op_.causal, kStrip, kKeyBlock);
    BlockTiles by_columns(op_.layout, By::columns, op_.causal, kKeyBlock, kStrip);
    for_strips(by_rows, [&](int64_t bh, int64_t strip) { query_strip(by_rows, bh, strip); });
    for_strips(by_columns, [&](int64_t bh, int64_t strip) { key_strip(by_columns, bh, strip); });
  }

 private:
  template <class Body>
  void for_strips(const BlockTiles& tiles, Body&& body) const {
    auto chunks = tiles.longest_first(s_.B, s_.H);
    parallel_for(int64_t(chunks.size()), [&](int64_t i) { body(chunks[size_t(i)].head, chunks[size_t(i)].strip); });
  }
  void pack_keys(SparseBlocks& w, int64_t bh, int64_t first, int64_t n) const {
    pack_rows(head_rows<const T>(op_.qkv, s_, bh / s_.H, bh % s_.H, 1), first, n, s_.D, w.k, ld_);
    pack_rows(head_rows<const T>(op_.qkv, s_, bh / s_.H, bh % s_.H, 2), first, n, s_.D, w.v, ld_);
  }
  void write(const float* values, int64_t bh, int64_t which, int64_t first, int64_t n, float factor) const {
    write_rows(values, ld_, n, s_.D, head_rows<T>(op_.dqkv, s_, bh / s_.H, bh % s_.H, which), first, factor);
  }

  void query_strip(const BlockTiles& tiles, int64_t bh, int64_t number) const {
    int64_t first = number * tiles.strip_tokens(), n = std::min(tiles.strip_tokens(), s_.T - first);
    Sight sight = heads_.sight(bh);
    auto keep = heads_.keep(bh);
    auto w = in_scratch<SparseBlocks>(ld_);
    queries_.describe(w.strip, bh, first, n, sight);
    queries_.pack(w.strip, bh);
    std::fill(w.dq, w.dq + n * ld_, 0.0f);
    Fetched keys;
    for (const Tile& tile : tiles.of(op_.layout.layout_of(bh % s_.H), number)) {
      GradientStrip part = w.strip.part(tile.from, tile.width, ld_);
      if (heads_.may_skip(part, sight, bh, tile.first, tile.n)) continue;
      if (!keys.holds(tile.first, tile.n)) {
        keys = {tile.first, tile.n};
        pack_keys(w, bh, tile.first, tile.n);
      }
      int64_t at = (tile.first - keys.first) * ld_;
      Meeting meeting{part, sight, tile.first, seen(part, tile.first, tile.n)};
      meeting.differentiate_scores(w.k + at, w.v + at, s_.D, w.p, w.ds, keep ? &*keep : nullptr);
      meeting.add_query_gradients(w.ds, w.k + at, ld_, w.dq + tile.from * ld_);
    }
    write(w.dq, bh, 0, first, n, float(op_.scale));
  }

  void key_strip(const BlockTiles& tiles, int64_t bh, int64_t number) const {
    int64_t first = number * tiles.strip_tokens(), n = std::min(tiles.strip_tokens(), s_.T - first);
    Sight sight = heads_.sight(bh);
    auto keep = heads_.keep(bh);
    auto w = in_scratch<SparseBlocks>(ld_);
    pack_keys(w, bh, first, n);
    std::fill(w.dk, w.dk + n * ld_, 0.0f);
    std::fill(w.dv, w.dv + n * ld_, 0.0f);
    Fetched queries;
    for (const Tile& tile : tiles.of(op_.layout.layout_of(bh % s_.H), number)) {
      if (!queries.holds(tile.first, tile.n)) {
        queries = {tile.first, tile.n};
        queries_.describe(w.strip, bh, tile.first, tile.n, sight);
        queries_.pack(w.strip, bh);
      }
      GradientStrip part = w.strip.part(tile.first - queries.first, tile.n, ld_);
      int64_t key = first + tile.from, at = tile.from * ld_;
      if (heads_.may_skip(part, sight, bh, key, tile.width)) continue;
      Meeting meeting{part, sight, key, seen(part, key, tile.width)};
      meeting.differentiate_scores(w.k + at, w.v + at, s_.D, w.p, w.ds, keep ? &*keep : nullptr);
      meeting.add_key_gradients(w.p, w.ds, ld_, w.dk + at, w.dv + at);
    }
    write(w.dk, bh, 1, first, n, float(op_.scale));
    write(w.dv, bh, 2, first, n, 1.0f);
  }

  // How many of the keys first .. first + n - 1 the last query of a strip may see.
  int64_t seen(const GradientStrip& strip, int64_t first, int64_t n) const {
    return op_.causal ? std::min(n, strip.first + strip.rows - first) : n;
  }

  const SparseAttentionBackward& op_;
  SparseHeads<SparseAttentionBackward> heads_;
  AttentionShape s_;
  int64_t ld_;
  GradientRows<T> queries_;
};

}  // namespace

void sparse_attention_backward(const SparseAttentionBackward& op) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { SparseBackward<T>(op).run(); });
}

}  // namespace ds::DS_ISA
