// The backward pass of attention: groups of keys, whose gradients stay in the cache, meet every strip of queries that
// sees them; a strip's dq gathers one group after the other.
#include <atomic>
#include <optional>

#include "../../runtime/futex.h"
#include "../../runtime/pool.h"
#include "attention.h"
#include "block_product.h"
#include "keep_bits.h"
#include "key_norms.h"
#include "transpose.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGroup = 4 * kKeyBlock;
// With fewer heads than this the groups of one head are chunks of their own.
constexpr int64_t kManyHeads = 32;
constexpr int64_t kRowsPerChunk = 256;

// The blocks of one thread. `ld`: D rounded up to whole vectors.
struct BackwardBlocks {
  int64_t ld;
  float *k, *v, *dk, *dv;                 // [kGroup, ld]
  float *query, *dout, *dq;               // [kStrip, ld]
  float *query_columns, *dout_columns;    // [D, width]; query_columns in units of log 2
  float *p, *ds;                          // [kKeyBlock, width]
  float *lse, *delta, *position, *reach;  // [kStrip]; lse in units of log 2, reach: see may_skip
  float* head_dq;                         // [dq_rows, ld]
  int64_t first = 0, rows = 0, width = 0;

  BackwardBlocks(Pieces& pieces, int64_t D, int64_t dq_rows) : ld(round_up(D, kLanes)) {
    for (float** array : {&k, &v, &dk, &dv}) *array = pieces.take(kGroup * ld);
    for (float** array : {&query, &dout, &dq}) *array = pieces.take(kStrip * ld);
    for (float** array : {&query_columns, &dout_columns}) *array = pieces.take(ld * kStrip);
    for (float** array : {&p, &ds}) *array = pieces.take(kKeyBlock * kStrip);
    for (float** array : {&lse, &delta, &position, &reach}) *array = pieces.take(kStrip);
    head_dq = pieces.take(dq_rows * ld);
  }
  // Whether all probabilities of a block of keys are negligible (see Strip::may_skip in the forward pass).
  bool may_skip(float key_norm, float largest_bias, float slope) const {
    for (int64_t i = 0; i < width; i += kLanes) {
      Vec bound = load(reach + i) * (1.01f * key_norm) + (largest_bias - slope * load(position + i));
      IVec negligible = bound - load(lse + i) < kNegligible - 1.0f;
      for (int lane = 0; lane < kLanes; ++lane)
        if (!negligible[lane]) return false;
    }
    return true;
  }
};

// From raw scores in p and dout v^T in ds to probabilities (after dropout) and the gradient of the scores.
template <bool biased, bool masked>
void differentiate(const BackwardBlocks& w, const Sight& sight, int64_t first, int64_t n, const KeepBits* keep) {
  for (int64_t c = 0; c < w.width; c += kLanes) {
    Vec position = load(w.position + c), lse = load(w.lse + c), delta = load(w.delta + c);
    IVec query = lane_numbers() + int32_t(w.first + c);
    int64_t limit = masked && sight.causal ? key_limit(w.first, c, first, n) : n;
    for (int64_t j = 0; j < limit; ++j) {
      float *p_at = w.p + j * w.width + c, *ds_at = w.ds + j * w.width + c;
      Vec x = load(p_at);
      if constexpr (biased) x = sight.slope * (sight.position[first + j] - position) + x;
      if constexpr (masked) {
        bool hidden = sight.mask && !sight.mask[first + j];
        x = hidden ? splat(-INFINITY) : x;
        if (sight.causal) x = select(query >= int32_t(first + j), x, splat(-INFINITY));
      }
      Vec p = exp2_negative(x - lse), dp = load(ds_at), kept = p;
      if (keep) {
        kept = as_float(as_int(p) & keep->kept(c, j));
        dp = as_float(as_int(dp) & keep->kept(c, j));
      }
      store(p_at, kept);
      store(ds_at, p * (dp - delta));
    }
  }
}

template <class T>
class Backward {
 public:
  explicit Backward(const AttentionBackward& op)
      : op_(op),
        s_(op.shape()),
        places_(op.mask ? op.mask.as<uint8_t>() : nullptr, s_.T, s_.B, s_.T),
        norms_(op.slopes, s_.B, s_.H, s_.T, s_.T),
        delta_(size_t(s_.B * s_.H * s_.T)),
        reach_(op.slopes ? delta_.size() : 0),
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
    describe_rows();
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

  void describe_rows() {
    int64_t pieces = (s_.T + kRowsPerChunk - 1) / kRowsPerChunk;
    parallel_for(s_.B * s_.H * pieces, [&](int64_t c) {
      int64_t bh = c / pieces, first = c % pieces * kRowsPerChunk, end = std::min(s_.T, first + kRowsPerChunk);
      auto out = out_rows<const T>(op_.out, s_, bh / s_.H, bh % s_.H);
      auto dout = out_rows<const T>(op_.dout, s_, bh / s_.H, bh % s_.H);
      auto query = rows(op_.qkv, bh, 0);
      for (int64_t i = first; i < end; ++i) {
        Vec total{};
        for_lanes(s_.D, [&](auto load_at, auto) { total = load_at(out.row(i)) * load_at(dout.row(i)) + total; });
        delta_[size_t(bh * s_.T + i)] = sum(total);
        if (norms_.of_head(bh))
          reach_[size_t(bh * s_.T + i)] =
              std::sqrt(squared_norm(query.row(i), s_.D)) * std::fabs(float(op_.scale)) * kLog2E;
      }
    });
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
    write(w.dk, n, gradient_rows(bh, 1), first, float(op_.scale));
    write(w.dv, n, gradient_rows(bh, 2), first, 1.0f);
  }

  // Lets a strip of queries meet the keys first .. first + n - 1; false when none of them matters to it.
  bool meet(BackwardBlocks& w, int64_t bh, int64_t strip, const Sight& sight, int64_t first, int64_t n,
            KeepBits* keep) {
    int64_t D = s_.D;
    w.first = strip * kStrip, w.rows = std::min(kStrip, s_.T - w.first), w.width = round_up(w.rows, kLanes);
    if (op_.causal) n = std::min(n, w.first + w.rows - first);
    describe(w, bh, sight);
    bool met = false;
    for (int64_t at = 0; at < n; at += kKeyBlock) {
      int64_t key = first + at, count = std::min(kKeyBlock, n - at);
      if (norms_.of_head(bh) && w.may_skip(norms_.of(bh, key / kKeyBlock), sight.largest_bias(key, count), sight.slope))
        continue;
      if (!met) pack(w, bh);
      met = true;
      meet_block(w, sight, at, key, count, keep);
    }
    return met;
  }

  // Keys key .. key + n - 1 of the sequence, which are at .. at + n - 1 of the group.
  void meet_block(BackwardBlocks& w, const Sight& sight, int64_t at, int64_t key, int64_t n, KeepBits* keep) const {
    bool cut = sight.causal && key + n - 1 > w.first, masked = cut || !sight.all_visible(key, n);
    int64_t step = cut ? kStep : n, width = w.width;
    for (int64_t j = 0; j < n; j += step) {
      int64_t c = cut ? first_column(w.first, key + j) : 0, m = std::min(step, n - j);
      Left k{w.k + (at + j) * ld_, ld_, 1}, v{w.v + (at + j) * ld_, ld_, 1};
      block_product<From::zero>(k, m, width - c, s_.D, w.query_columns + c, width, w.p + j * width + c, width);
      block_product<From::zero>(v, m, width - c, s_.D, w.dout_columns + c, width, w.ds + j * width + c, width);
    }
    if (keep) keep->draw(w.first, w.rows, key, n);
    auto go = sight.slope != 0 ? (masked ? differentiate<true, true> : differentiate<true, false>)
                               : (masked ? differentiate<false, true> : differentiate<false, false>);
    go(w, sight, key, n, keep);
    for (int64_t j = 0; j < n; j += step) {
      int64_t c = cut ? first_column(w.first, key + j) : 0, m = std::min(step, n - j), rows = w.rows - c;
      const float *p = w.p + j * width + c, *ds = w.ds + j * width + c;
      block_product<From::itself>({p, width, 1}, m, ld_, rows, w.dout + c * ld_, ld_, w.dv + (at + j) * ld_, ld_);
      block_product<From::itself>({ds, width, 1}, m, ld_, rows, w.query + c * ld_, ld_, w.dk + (at + j) * ld_, ld_);
      block_product<From::itself>({ds, 1, width}, rows, ld_, m, w.k + (at + j) * ld_, ld_, w.dq + c * ld_, ld_);
    }
  }

  void describe(BackwardBlocks& w, int64_t bh, const Sight& sight) const {
    for (int64_t i = 0; i < w.width; ++i) {
      int64_t at = w.first + std::min(i, w.rows - 1);
      float lse = op_.lse.as<float>()[bh * s_.T + at];
      // No visible key: every probability becomes 0. Beyond the last row: no block is worth a visit.
      w.lse[i] = lse == -INFINITY || i >= w.rows ? INFINITY : lse * kLog2E;
      w.delta[i] = i < w.rows ? delta_[size_t(bh * s_.T + at)] : 0.0f;
      w.position[i] = sight.position[at];
      w.reach[i] = norms_.of_head(bh) ? reach_[size_t(bh * s_.T + at)] : 0.0f;
    }
  }

  void pack(BackwardBlocks& w, int64_t bh) const {
    auto query = rows(op_.qkv, bh, 0);
    auto dout = out_rows<const T>(op_.dout, s_, bh / s_.H, bh % s_.H);
    float keep = float(1 / (1 - op_.dropout));
    pack_rows(query, w.first, w.rows, s_.D, w.query, ld_, 1.0f, w.width);
    pack_rows(dout, w.first, w.rows, s_.D, w.dout, ld_, keep, w.width);
    transpose(w.query, w.width, ld_, ld_, w.query_columns, float(op_.scale) * kLog2E);
    transpose(w.dout, w.width, ld_, ld_, w.dout_columns, 1.0f);
    std::fill(w.dq, w.dq + w.rows * ld_, 0.0f);
  }

  // Adds a group's part of a strip's dq to those of the groups before it, in their order.
  void give_dq(const BackwardBlocks& w, int64_t bh, int64_t strip, int64_t g, bool met, std::atomic<uint32_t>* done) {
    if (done)
      for (uint32_t seen; (seen = done[strip].load(std::memory_order_acquire)) != uint32_t(g);)
        if (!spin_until([&] { return done[strip].load(std::memory_order_acquire) == uint32_t(g); }, 20000))
          futex_wait(done[strip], seen);
    if (!met) std::fill(w.dq, w.dq + w.rows * ld_, 0.0f);
    if (sum_dq_) {
      // Parts of 16-bit gradients are added up in f32 and rounded once.
      float* total = (done ? dq_.data() + bh * s_.T * ld_ : w.head_dq) + w.first * ld_;
      for (int64_t i = 0; i < w.rows * ld_; i += kLanes)
        store(total + i, g == 0 ? load(w.dq + i) : load(total + i) + load(w.dq + i));
      bool last = g == (op_.causal ? (w.first + w.rows - 1) / kGroup : groups_ - 1);
      if (last) write(total, w.rows, gradient_rows(bh, 0), w.first, float(op_.scale));
    } else if (g == 0) {
      write(w.dq, w.rows, gradient_rows(bh, 0), w.first, float(op_.scale));
    } else if (met) {
      add(w.dq, w.rows, gradient_rows(bh, 0), w.first, float(op_.scale));
    }
    if (done) {
      done[strip].store(uint32_t(g) + 1, std::memory_order_release);
      futex_wake(done[strip]);
    }
  }

  void write(const float* values, int64_t n, const Rows<T>& target, int64_t first, float factor) const {
    for (int64_t i = 0; i < n; ++i)
      for_lanes(s_.D, [&](auto load_at, auto store_at) {
        store_at(target.row(first + i), load_at(values + i * ld_) * factor);
      });
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
  std::vector<float> delta_, reach_;  // [B, H, T]; reach: |query| as packed
  int64_t ld_, groups_, strips_;
  bool sum_dq_;            // whether dq gathers in f32 beside the output
  std::vector<float> dq_;  // [B, H, T, ld]; with many heads a thread holds that of its head alone
};

}  // namespace

void attention_backward(const AttentionBackward& op) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { Backward<T>(op).run(); });
}

}  // namespace ds::DS_ISA
