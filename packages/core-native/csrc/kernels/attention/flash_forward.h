// The forward pass of attention for one head: strips of queries against blocks of keys, the newest block first, with
// the softmax kept online. Shared by attention() and by attention_cached(), so that both give the same bits.
#pragma once
#include "block_product.h"
#include "blocks.h"
#include "keep_bits.h"
#include "key_norms.h"
#include "transpose.h"

namespace ds::DS_ISA {

constexpr int64_t kStripsPerChunk = 4;

// A strip of queries on its way through the keys. Arrays of `width` hold one number a query.
struct Strip {
  int64_t first, rows, width;  // queries first .. first + rows - 1, rounded up to whole vectors
  int64_t stride;              // of `query` and `sum`: the width, or that of the strip this is a part of
  float* query;                // [ld, stride], ld: D rounded up to whole vectors
  float* sum;                  // [ld, stride]: sum over keys of probability * value, relative to `largest`
  float *largest, *total;      // the largest score so far, and the sum of 2^(score - largest)
  float *position, *norm;      // position of the query; its length, as packed
  float* shrink;               // what the last block made of the older sums

  Strip(Pieces& pieces, int64_t D)
      : first(0),
        rows(0),
        width(kStrip),
        stride(kStrip),
        query(pieces.take(round_up(D, kLanes) * kStrip)),
        sum(pieces.take(round_up(D, kLanes) * kStrip)) {
    for (float** array : {&largest, &total, &position, &norm, &shrink}) *array = pieces.take(kStrip);
  }
  template <class T>
  void start(const Rows<const T>& queries, int64_t from, int64_t n, int64_t offset, int64_t D, float factor,
             const Sight& sight, float* rows_buffer) {
    first = offset + from, rows = n, width = stride = round_up(n, kLanes);
    int64_t ld = round_up(D, kLanes);
    pack_rows(queries, from, n, D, rows_buffer, ld, 1.0f, width);
    transpose(rows_buffer, width, ld, ld, query, factor);
    std::fill(sum, sum + ld * width, 0.0f);
    std::fill(largest, largest + width, -INFINITY);
    std::fill(total, total + width, 0.0f);
    for (int64_t i = 0; i < width; ++i) position[i] = sight.position[first + std::min(i, n - 1)];
    for (int64_t c = 0; c < width; c += kLanes) {
      Vec square{};
      for (int64_t d = 0; d < D; ++d) square = load(query + d * width + c) * load(query + d * width + c) + square;
      store(norm + c, sqrt(square));
    }
  }
  // The n queries from `column` on as a strip of their own, in the same memory. Both are whole vectors.
  Strip part(int64_t column, int64_t n) const {
    Strip p = *this;
    p.first += column, p.rows = p.width = n;
    for (float** array : {&p.query, &p.sum, &p.largest, &p.total, &p.position, &p.norm, &p.shrink}) *array += column;
    return p;
  }
  // Whether every probability of a block is negligible beside the largest one so far; then visiting it would change no
  // bit. By Cauchy and Schwarz no score passes |query| * |key| + bias; one per cent covers the rounding of the product.
  bool may_skip(float key_norm, float largest_bias, float slope) const {
    for (int64_t i = 0; i < width; i += kLanes) {
      Vec bound = load(norm + i) * (1.01f * key_norm) + (largest_bias - slope * load(position + i));
      IVec negligible = bound - load(largest + i) < kNegligible - 1.0f;
      for (int lane = 0; lane < kLanes; ++lane)
        if (!negligible[lane]) return false;
    }
    return true;
  }
};

// Turns raw scores [n, width] of the keys first .. first + n - 1 into probabilities relative to the new maximum.
template <bool biased, bool masked>
void soften_columns(const Strip& strip, const Sight& sight, int64_t first, int64_t n, float* scores) {
  for (int64_t c = 0; c < strip.width; c += kLanes) {
    float* column = scores + c;
    Vec position = load(strip.position + c);
    IVec query = lane_numbers() + int32_t(strip.first + c);
    int64_t limit = masked && sight.causal ? key_limit(strip.first, c, first, n) : n;
    Vec largest[4] = {splat(-INFINITY), splat(-INFINITY), splat(-INFINITY), splat(-INFINITY)};
    in_four_slots(limit, [&](int64_t j, auto slot) {
      Vec x = load(column + j * strip.width);
      if constexpr (biased) x = sight.slope * (sight.position[first + j] - position) + x;
      if constexpr (masked) {
        bool hidden = sight.mask && !sight.mask[first + j];
        x = hidden ? splat(-INFINITY) : x;
        if (sight.causal) x = select(query >= int32_t(first + j), x, splat(-INFINITY));
        if (sight.window) x = select(query < int32_t(first + j + sight.window), x, splat(-INFINITY));
      }
      if constexpr (biased || masked) store(column + j * strip.width, x);
      largest[slot] = max(x, largest[slot]);
    });
    Vec before = load(strip.largest + c);
    Vec after = max(max(max(largest[0], largest[1]), max(largest[2], largest[3])), before);
    Vec base = select(after > -INFINITY, after, Vec{});  // no key seen yet: -inf - 0 instead of -inf + inf
    Vec part[4] = {};
    in_four_slots(limit, [&](int64_t j, auto slot) {
      Vec p = exp2_negative(load(column + j * strip.width) - base);
      store(column + j * strip.width, p);
      part[slot] += p;
    });
    Vec shrink = exp2_negative(before - base);
    store(strip.shrink + c, shrink);
    store(strip.largest + c, after);
    store(strip.total + c, load(strip.total + c) * shrink + ((part[0] + part[1]) + (part[2] + part[3])));
  }
}

// Numbers of which each stands for a whole key or value of a block.
struct BlockScales {
  const float *keys, *values;  // [n], or null
};

// Row j of `rows` [n, width] times factors[j].
inline void scale_rows(float* rows, int64_t n, int64_t width, const float* factors) {
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < width; c += kLanes) store(rows + j * width + c, load(rows + j * width + c) * factors[j]);
}

// Lets a strip see the keys first .. first + n - 1, given as k, where row j is key first + j, and v [n, D].
inline void attend(const Strip& strip, const Sight& sight, int64_t first, int64_t n, int64_t D, Left k, const float* v,
                   float* scores, KeepBits* keep, BlockScales scales = {}) {
  int64_t width = strip.width;
  if (sight.causal) n = std::min(n, strip.first + strip.rows - first);
  bool cut = sight.causal && first + n - 1 > strip.first;
  bool masked = cut || !sight.all_visible(first, n) || sight.leaves_behind(first, strip.first + strip.rows - 1);
  int64_t step = cut ? kStep : n;
  for (int64_t j = 0; j < n; j += step) {
    int64_t c = cut ? first_column(strip.first, first + j) : 0;
    block_product<From::zero>({k.data + j * k.row, k.row, k.step}, std::min(step, n - j), width - c, D, strip.query + c,
                              strip.stride, scores + j * width + c, width);
  }
  if (scales.keys) scale_rows(scores, n, width, scales.keys);
  if (sight.added) sight.add(strip.first, width, first, n, scores);
  auto soften = sight.slope != 0 ? (masked ? soften_columns<true, true> : soften_columns<true, false>)
                                 : (masked ? soften_columns<false, true> : soften_columns<false, false>);
  soften(strip, sight, first, n, scores);
  if (keep) keep->drop(scores, strip.first, strip.rows, width, first, n);
  if (scales.values) scale_rows(scores, n, width, scales.values);
  for (int64_t j = 0; j < n; j += step) {
    int64_t c = cut ? first_column(strip.first, first + j) : 0;
    auto add = j == 0 ? block_product<From::itself_times> : block_product<From::itself>;
    add({v + j * D, 1, D}, D, width - c, std::min(step, n - j), scores + j * width + c, width, strip.sum + c,
        strip.stride, strip.shrink + c);
  }
}

struct ForwardBlocks {
  float *k, *v;   // [kKeyBlock, ld], [kKeyBlock, D]; ld is D rounded up to whole vectors
  float* rows;    // [kStrip, ld]
  float* scores;  // [kKeyBlock, kStrip]
  Strip strips[kStripsPerChunk];
  int64_t count = 0;  // of strips in use

  ForwardBlocks(Pieces& pieces, int64_t D)
      : k(pieces.take(kKeyBlock * round_up(D, kLanes))),
        v(pieces.take(kKeyBlock * D)),
        rows(pieces.take(kStrip * round_up(D, kLanes))),
        scores(pieces.take(kKeyBlock * kStrip)),
        strips{{pieces, D}, {pieces, D}, {pieces, D}, {pieces, D}} {}
};

// Lets the strips see keys 0 .. keys - 1 of a head. pack(first, n, k, v) fetches n keys as [n, ld] and values as [n,
// D]. The newest block comes first: with ALiBi it holds the largest scores, which make the far blocks negligible.
template <class Pack>
void attend_all(ForwardBlocks& w, const Sight& sight, int64_t keys, int64_t D, const KeyNorms& norms, int64_t head,
                KeepBits* keep, Pack&& pack) {
  for (int64_t first = (keys - 1) / kKeyBlock * kKeyBlock; first >= 0; first -= kKeyBlock) {
    int64_t n = std::min(kKeyBlock, keys - first);
    bool packed = false;
    for (int64_t i = 0; i < w.count; ++i) {
      const Strip& strip = w.strips[i];
      if (sight.causal && first >= strip.first + strip.rows) continue;
      if (norms.of_head(head) &&
          strip.may_skip(norms.of(head, first / kKeyBlock), sight.largest_bias(first, n), sight.slope))
        continue;
      if (!packed) pack(first, n, w.k, w.v);
      packed = true;
      attend(strip, sight, first, n, D, {w.k, round_up(D, kLanes), 1}, w.v, w.scores, keep);
    }
  }
}

// Divides by the totals (times `factor`), rounds and writes the outputs; lse [rows] may be null.
template <class T>
void finish(const Strip& strip, int64_t D, float factor, const Rows<T>& out, int64_t from, float* lse, float* rows) {
  int64_t ld = round_up(D, kLanes);
  transpose(strip.sum, ld, strip.width, strip.width, rows, 1.0f);
  for (int64_t i = 0; i < strip.rows; ++i) {
    float total = strip.total[i], scale = total == 0 ? 0 : factor / total;
    for_lanes(D, [&](auto load_at, auto store_at) { store_at(out.row(from + i), load_at(rows + i * ld) * scale); });
    if (lse) lse[i] = total == 0 ? -INFINITY : strip.largest[i] * kLn2 + std::log(total);
  }
}

}  // namespace ds::DS_ISA
