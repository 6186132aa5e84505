// The backward pass of attention for one head: a strip of queries meets keys, whose probabilities are computed again
// from lse. Shared by dense and block-sparse attention.
#pragma once
#include "../../runtime/pool.h"
#include "block_product.h"
#include "blocks.h"
#include "keep_bits.h"
#include "key_norms.h"
#include "transpose.h"

namespace ds::DS_ISA {

// A strip of queries on its way through the keys. `ld`: D rounded up to whole vectors.
struct GradientStrip {
  int64_t first = 0, rows = 0, width = 0;  // queries first .. first + rows - 1, rounded up to whole vectors
  int64_t stride = 0;                      // of the columns: the width, or that of the strip this is a part of
  float *query, *dout;                     // [width, ld]
  float *query_columns, *dout_columns;     // [ld, stride]; query_columns in units of log 2
  float *lse, *delta, *position, *reach;   // [width]; lse in units of log 2, reach: see may_skip

  GradientStrip(Pieces& pieces, int64_t ld) {
    for (float** array : {&query, &dout, &query_columns, &dout_columns}) *array = pieces.take(kStrip * ld);
    for (float** array : {&lse, &delta, &position, &reach}) *array = pieces.take(kStrip);
  }
  // The n queries from `column` on as a strip of their own, in the same memory. Both are whole vectors.
  GradientStrip part(int64_t column, int64_t n, int64_t ld) const {
    GradientStrip p = *this;
    p.first += column, p.rows = p.width = n;
    for (float** array : {&p.query, &p.dout}) *array += column * ld;
    for (float** array : {&p.query_columns, &p.dout_columns, &p.lse, &p.delta, &p.position, &p.reach}) *array += column;
    return p;
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

// What the backward pass knows of all queries before it starts, and how it fetches strips of them.
template <class T>
class GradientRows {
 public:
  template <class Op>
  GradientRows(const Op& op, const KeyNorms& norms)
      : s_(op.shape()),
        ld_(round_up(s_.D, kLanes)),
        scale_(float(op.scale)),
        keep_(float(1 / (1 - op.dropout))),
        qkv_(op.qkv),
        out_(op.out),
        dout_(op.dout),
        lse_(op.lse),
        norms_(norms),
        delta_(size_t(s_.B * s_.H * s_.T)),
        reach_(op.slopes ? delta_.size() : 0) {}

  // delta of every query, and its length as packed where blocks of keys may be skipped.
  void prepare() {
    constexpr int64_t kRowsPerChunk = 256;
    int64_t pieces = (s_.T + kRowsPerChunk - 1) / kRowsPerChunk;
    parallel_for(s_.B * s_.H * pieces, [&](int64_t c) {
      int64_t bh = c / pieces, first = c % pieces * kRowsPerChunk, end = std::min(s_.T, first + kRowsPerChunk);
      auto out = out_rows<const T>(out_, s_, bh / s_.H, bh % s_.H);
      auto dout = out_rows<const T>(dout_, s_, bh / s_.H, bh % s_.H);
      auto query = head_rows<const T>(qkv_, s_, bh / s_.H, bh % s_.H, 0);
      for (int64_t i = first; i < end; ++i) {
        Vec total{};
        for_lanes(s_.D, [&](auto load_at, auto) { total = load_at(out.row(i)) * load_at(dout.row(i)) + total; });
        delta_[size_t(bh * s_.T + i)] = sum(total);
        if (norms_.of_head(bh))
          reach_[size_t(bh * s_.T + i)] = std::sqrt(squared_norm(query.row(i), s_.D)) * std::fabs(scale_) * kLog2E;
      }
    });
  }

  // Sets the strip to `rows` queries from `first` on: what one number a query says of them.
  void describe(GradientStrip& strip, int64_t bh, int64_t first, int64_t rows, const Sight& sight) const {
    strip.first = first, strip.rows = rows, strip.width = strip.stride = round_up(rows, kLanes);
    for (int64_t i = 0; i < strip.width; ++i) {
      int64_t at = first + std::min(i, rows - 1);
      float lse = lse_.as<float>()[bh * s_.T + at];
      // No visible key: every probability becomes 0. Beyond the last row: no block is worth a visit.
      strip.lse[i] = lse == -INFINITY || i >= rows ? INFINITY : lse * kLog2E;
      strip.delta[i] = i < rows ? delta_[size_t(bh * s_.T + at)] : 0.0f;
      strip.position[i] = sight.position[at];
      strip.reach[i] = norms_.of_head(bh) ? reach_[size_t(bh * s_.T + at)] : 0.0f;
    }
  }

  // Fetches the queries and the gradients of the outputs of a strip that is described.
  void pack(GradientStrip& strip, int64_t bh) const {
    auto query = head_rows<const T>(qkv_, s_, bh / s_.H, bh % s_.H, 0);
    auto dout = out_rows<const T>(dout_, s_, bh / s_.H, bh % s_.H);
    pack_rows(query, strip.first, strip.rows, s_.D, strip.query, ld_, 1.0f, strip.width);
    pack_rows(dout, strip.first, strip.rows, s_.D, strip.dout, ld_, keep_, strip.width);
    transpose(strip.query, strip.width, ld_, ld_, strip.query_columns, scale_ * kLog2E);
    transpose(strip.dout, strip.width, ld_, ld_, strip.dout_columns, 1.0f);
  }

 private:
  AttentionShape s_;
  int64_t ld_;
  float scale_, keep_;
  const Tensor &qkv_, &out_, &dout_, &lse_;
  const KeyNorms& norms_;
  std::vector<float> delta_, reach_;  // [B, H, T]
};

// Writes values [n, ld] times `factor` to rows first .. of a gradient.
template <class T>
void write_rows(const float* values, int64_t ld, int64_t n, int64_t D, const Rows<T>& target, int64_t first,
                float factor) {
  for (int64_t i = 0; i < n; ++i)
    for_lanes(D,
              [&](auto load_at, auto store_at) { store_at(target.row(first + i), load_at(values + i * ld) * factor); });
}

// From raw scores in p and dout v^T in ds, [n, width] both, to probabilities (after dropout) and the gradient of the
// scores.
template <bool biased, bool masked>
void differentiate(const GradientStrip& w, const Sight& sight, int64_t first, int64_t n, float* scores, float* ds,
                   const KeepBits* keep) {
  for (int64_t c = 0; c < w.width; c += kLanes) {
    Vec position = load(w.position + c), lse = load(w.lse + c), delta = load(w.delta + c);
    IVec query = lane_numbers() + int32_t(w.first + c);
    int64_t limit = masked && sight.causal ? key_limit(w.first, c, first, n) : n;
    for (int64_t j = 0; j < limit; ++j) {
      float *p_at = scores + j * w.width + c, *ds_at = ds + j * w.width + c;
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

// How a strip meets keys first .. first + n - 1: at once, or in steps where the diagonal cuts.
struct Meeting {
  const GradientStrip& strip;
  const Sight& sight;
  int64_t first, n;
  bool cut = sight.causal && first + n - 1 > strip.first;

  // Calls body(j, m, c) for keys j .. j + m - 1 of the n and the queries from column c on.
  template <class Body>
  void steps(Body&& body) const {
    int64_t step = cut ? kStep : n;
    for (int64_t j = 0; j < n; j += step)
      body(j, std::min(step, n - j), cut ? first_column(strip.first, first + j) : int64_t(0));
  }

  // Makes p and ds, [n, width], from keys and values [n, ld].
  void differentiate_scores(const float* k, const float* v, int64_t D, float* p, float* ds, KeepBits* keep) const {
    int64_t width = strip.width, stride = strip.stride, ld = round_up(D, kLanes);
    steps([&](int64_t j, int64_t m, int64_t c) {
      Left key{k + j * ld, ld, 1}, value{v + j * ld, ld, 1};
      block_product<From::zero>(key, m, width - c, D, strip.query_columns + c, stride, p + j * width + c, width);
      block_product<From::zero>(value, m, width - c, D, strip.dout_columns + c, stride, ds + j * width + c, width);
    });
    if (sight.added) sight.add(strip.first, width, first, n, p);
    if (keep) keep->draw(strip.first, strip.rows, first, n);
    bool masked = cut || !sight.all_visible(first, n);
    auto go = sight.slope != 0 ? (masked ? differentiate<true, true> : differentiate<true, false>)
                               : (masked ? differentiate<false, true> : differentiate<false, false>);
    go(strip, sight, first, n, p, ds, keep);
  }

  // dk, dv [n, ld] += of these queries
  void add_key_gradients(const float* p, const float* ds, int64_t ld, float* dk, float* dv) const {
    int64_t width = strip.width;
    steps([&](int64_t j, int64_t m, int64_t c) {
      const float *p_at = p + j * width + c, *ds_at = ds + j * width + c;
      int64_t rows = strip.rows - c;
      block_product<From::itself>({p_at, width, 1}, m, ld, rows, strip.dout + c * ld, ld, dv + j * ld, ld);
      block_product<From::itself>({ds_at, width, 1}, m, ld, rows, strip.query + c * ld, ld, dk + j * ld, ld);
    });
  }

  // dq [rows, ld] += of these keys
  void add_query_gradients(const float* ds, const float* k, int64_t ld, float* dq) const {
    int64_t width = strip.width;
    steps([&](int64_t j, int64_t m, int64_t c) {
      const float* ds_at = ds + j * width + c;
      block_product<From::itself>({ds_at, 1, width}, strip.rows - c, ld, m, k + j * ld, ld, dq + c * ld, ld);
    });
  }
};

}  // namespace ds::DS_ISA
