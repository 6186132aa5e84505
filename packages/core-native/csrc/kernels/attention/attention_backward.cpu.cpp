// The backward pass of attention: groups of keys, whose gradients stay in the cache, meet every strip of queries that
// sees them; a strip's dq gathers one group after the other.
#include <atomic>
#include <optional>

#include "../../runtime/futex.h"
#include "../../runtime/pool.h"
#include "attention.h"
#include "flash_backward.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGroup = 4 * kKeyBlock;
// With fewer heads than this the groups of one head are chunks of their own.
constexpr int64_t kManyHeads = 32;

// The blocks of one thread. `ld`: D rounded up to whole vectors.
struct BackwardBlocks {
  int64_t ld;
  float *k, *v, *dk, *dv;  // [kGroup, ld]
  GradientStrip strip;
  float* dq;       // [kStrip, ld]
  float *p, *ds;   // [kKeyBlock, width]
  float* head_dq;  // [dq_rows, ld]

  BackwardBlocks(Pieces& pieces, int64_t D, int64_t dq_rows)
      : ld(round_up(D, kLanes)),
        k(pieces.take(kGroup * ld)),
        v(pieces.take(kGroup * ld)),
        dk(pieces.take(kGroup * ld)),
        dv(pieces.take(kGroup * ld)),
        strip(pieces, ld),
        dq(pieces.take(kStrip * ld)),
        p(pieces.take(kKeyBlock * kStrip)),
        ds(pieces.take(kKeyBlock * kStrip)),
        head_dq(pieces.take(dq_rows * ld)) {}
};

template <class T>
class Backward {
 public:
  explicit Backward(const AttentionBackward& op)
      : op_(op),
        s_(op.shape()),
        places_(op.mask ? op.mask.as<uint8_t>() : nullptr, s_.T, s_.B, s_.T),
        norms_(op.slopes, s_.B, s_.H, s_.T, s_.T),
        queries_(op, norms_),
        ld_(round_up(s_.D, kLanes)),
        groups_((s_.T + kGroup - 1) / kGroup),
        strips_((s_.T + kStrip - 1) / kStrip),
        sum_dq_(!std::is_same_v<T, float> && groups_ > 1) {
    if (sum_dq_ && s_.B * s_.H < kManyHeads) dq_.resize(size_t(s_.B * s_.H * s_.T * ld_));
  }

  void run() {
    int64_t heads = s_.B * s_.H;
    norms_.fill(
        [&](int64_t bh, int64_t first, int64_t n) { return largest_square(rows(op_.qkv, bh, 1), first, n, s_.D); });
    queries_.prepare();
    if (heads >= kManyHeads) {
      parallel_for(heads, [&](int64_t bh) {
        for (int64_t g = 0; g < groups_; ++g) group(bh, g, nullptr);
      });
    } else {
      // The first keys are seen by the most queries: the longest chunks first. A chunk waits for strips of the group
      // before it, which was taken earlier and waits for none that comes later.
      std::vector<std::atomic<uint32_t>> done(size_t(heads * strips_));
      parallel_for(heads * groups_, [&](int64_t c) { group(c % heads, c / heads, done.data() + c % heads * strips_); });
    }
  }

 private:
  Rows<const T> rows(const Tensor& qkv, int64_t bh, int64_t which) const {
    return head_rows<const T>(qkv, s_, bh / s_.H, bh % s_.H, which);
  }
  Rows<T> gradient_rows(int64_t bh, int64_t which) const {
    return head_rows<T>(op_.dqkv, s_, bh / s_.H, bh % s_.H, which);
  }

  // Gives the gradients of keys g * kGroup .. and their part of dq. done: per strip, how many groups have given theirs.
  void group(int64_t bh, int64_t g, std::atomic<uint32_t>* done) {
    int64_t D = s_.D, first = g * kGroup, n = std::min(kGroup, s_.T - first);
    float slope = op_.slopes ? op_.slopes.as<float>()[bh % s_.H] * kLog2E : 0.0f;
    Sight sight{op_.causal, slope, places_.position(bh / s_.H), places_.mask(bh / s_.H)};
    auto w = in_scratch<BackwardBlocks>(D, sum_dq_ && !done ? s_.T : 0);
    pack_rows(rows(op_.qkv, bh, 1), first, n, D, w.k, ld_);
    pack_rows(rows(op_.qkv, bh, 2), first, n, D, w.v, ld_);
    std::fill(w.dk, w.dk + n * ld_, 0.0f);
    std::fill(w.dv, w.dv + n * ld_, 0.0f);
    std::optional<KeepBits> keep;
    if (op_.dropout > 0) keep.emplace(op_.dropout, op_.seed, op_.offset, bh * s_.T, s_.T);
    for (int64_t strip = op_.causal ? first / kStrip : 0; strip < strips_; ++strip) {
      bool met = meet(w, bh, strip, sight, first, n, keep ? &*keep : nullptr);
      give_dq(w, bh, strip, g, met, done);
    }
    write_rows(w.dk, ld_, n, D, gradient_rows(bh, 1), first, float(op_.scale));
    write_rows(w.dv, ld_, n, D, gradient_rows(bh, 2), first, 1.0f);
  }

  // Lets a strip of queries meet the keys first .. first + n - 1; false when none of them matters to it.
  bool meet(BackwardBlocks& w, int64_t bh, int64_t strip, const Sight& sight, int64_t first, int64_t n,
            KeepBits* keep) {
    GradientStrip& queries = w.strip;
    queries_.describe(queries, bh, strip * kStrip, std::min(kStrip, s_.T - strip * kStrip), sight);
    if (op_.causal) n = std::min(n, queries.first + queries.rows - first);
    bool met = false;
    for (int64_t at = 0; at < n; at += kKeyBlock) {
      int64_t key = first + at, count = std::min(kKeyBlock, n - at);
      if (norms_.of_head(bh) &&
          queries.may_skip(norms_.of(bh, key / kKeyBlock), sight.largest_bias(key, count), sight.slope))
        continue;
      if (!met) {
        queries_.pack(queries, bh);
        std::fill(w.dq, w.dq + queries.rows * ld_, 0.0f);
      }
      met = true;
      Meeting meeting{queries, sight, key, count};
      meeting.differentiate_scores(w.k + at * ld_, w.v + at * ld_, s_.D, w.p, w.ds, keep);
      meeting.add_key_gradients(w.p, w.ds, ld_, w.dk + at * ld_, w.dv + at * ld_);
      meeting.add_query_gradients(w.ds, w.k + at * ld_, ld_, w.dq);
    }
    return met;
  }

  // Adds a group's part of a strip's dq to those of the groups before it, in their order.
  void give_dq(const BackwardBlocks& w, int64_t bh, int64_t strip, int64_t g, bool met, std::atomic<uint32_t>* done) {
    if (done)
      for (uint32_t seen; (seen = done[strip].load(std::memory_order_acquire)) != uint32_t(g);)
        if (!spin_until([&] { return done[strip].load(std::memory_order_acquire) == uint32_t(g); }, 20000))
          futex_wait(done[strip], seen);
    int64_t first = w.strip.first, rows = w.strip.rows;
    if (!met) std::fill(w.dq, w.dq + rows * ld_, 0.0f);
    if (sum_dq_) {
      // Parts of 16-bit gradients are added up in f32 and rounded once.
      float* total = (done ? dq_.data() + bh * s_.T * ld_ : w.head_dq) + first * ld_;
      for (int64_t i = 0; i < rows * ld_; i += kLanes)
        store(total + i, g == 0 ? load(w.dq + i) : load(total + i) + load(w.dq + i));
      bool last = g == (op_.causal ? (first + rows - 1) / kGroup : groups_ - 1);
      if (last) write_rows(total, ld_, rows, s_.D, gradient_rows(bh, 0), first, float(op_.scale));
    } else if (g == 0) {
      write_rows(w.dq, ld_, rows, s_.D, gradient_rows(bh, 0), first, float(op_.scale));
    } else if (met) {
      add(w.dq, rows, gradient_rows(bh, 0), first, float(op_.scale));
    }
    if (done) {
      done[strip].store(uint32_t(g) + 1, std::memory_order_release);
      futex_wake(done[strip]);
    }
  }

  void add(const float* values, int64_t n, const Rows<T>& target, int64_t first, float factor) const {
    for (int64_t i = 0; i < n; ++i) {
      T* row = target.row(first + i);
      for_lanes(s_.D,
                [&](auto load_at, auto store_at) { store_at(row, load_at(values + i * ld_) * factor + load_at(row)); });
    }
  }

  const AttentionBackward& op_;
  AttentionShape s_;
  Places places_;
  KeyNorms norms_;
  GradientRows<T> queries_;
  int64_t ld_, groups_, strips_;
  bool sum_dq_;            // whether dq gathers in f32 beside the output
  std::vector<float> dq_;  // [B, H, T, ld]; with many heads a thread holds that of its head alone
};

}  // namespace

void attention_backward(const AttentionBackward& op) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { Backward<T>(op).run(); });
}

}  // namespace ds::DS_ISA
