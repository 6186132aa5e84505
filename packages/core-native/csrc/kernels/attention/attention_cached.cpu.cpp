// Attention over a cache of keys and values. Few new tokens: one after the other, keys (for scores) and elements of D
// (for sums) as lanes; many: the strips of the training pass. Both do the same arithmetic for each query.
#include "attention_cached.h"

#include "../../runtime/pool.h"
#include "flash_forward.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGroups = kKeyBlock / kCacheGroup;
static_assert(kCacheGroup % kLanes == 0);

// Up to this many new tokens go one after the other: beyond, the strips are faster even with empty lanes.
constexpr int64_t kFewQueries = 4;

template <class T>
Vec load_some(const T* at, int64_t count) {
  return count == kLanes ? load(at) : load_tail(at, count);
}

// One query on its way through the keys; the arithmetic is that of Strip.
struct QueryRow {
  float* query;  // [D], in units of log 2
  float* sum;    // [D] and room for a whole vector
  int64_t place;
  float largest, total;
};

// The rows of a thread, of which `rows` are in use.
struct RowBlocks {
  float* scores;  // [kKeyBlock]
  QueryRow row[kFewQueries];
  RowBlocks(Pieces& pieces, int64_t D) : scores(pieces.take(kKeyBlock)) {
    for (auto& r : row) r.query = pieces.take(D), r.sum = pieces.take(round_up(D, kLanes));
  }
};

template <class T>
class Cached {
 public:
  explicit Cached(const AttentionCached& op)
      : op_(op),
        s_{op.qkv.dim(0), op.qkv.dim(1), op.heads, op.qkv.dim(2) / (3 * op.heads)},
        S_(op.k_cache.dim(2)),
        keys_(op.past + s_.T),
        places_(op.mask ? op.mask.as<uint8_t>() : nullptr, op.mask ? op.mask.dim(1) : 0, s_.B, keys_),
        norms_(op.slopes, s_.B, s_.H, keys_, s_.T) {}

  void run() {
    int64_t heads = s_.B * s_.H;
    if (s_.T == 0) return;
    if (s_.T <= kFewQueries) {
      parallel_for(heads, [&](int64_t bh) {
        append(bh);
        few(bh);
      });
      return;
    }
    parallel_for(heads, [&](int64_t bh) { append(bh); });
    norms_.fill([&](int64_t bh, int64_t first, int64_t n) { return largest_square(bh, first, n); });
    constexpr int64_t kQueries = kStrip * kStripsPerChunk;
    int64_t pieces = (s_.T + kQueries - 1) / kQueries;
    parallel_for(pieces * heads, [&](int64_t chunk) {
      int64_t first = (pieces - 1 - chunk / heads) * kQueries;
      many(chunk % heads, first, std::min(s_.T, first + kQueries));
    });
  }

 private:
  T* head(const Tensor& cache, int64_t bh) const { return cache.as<T>() + bh * S_ * s_.D; }
  Rows<const T> rows(int64_t bh, int64_t which) const {
    return head_rows<const T>(op_.qkv, s_, bh / s_.H, bh % s_.H, which);
  }
  Sight sight(int64_t bh) const {
    float slope = op_.slopes ? op_.slopes.as<float>()[bh % s_.H] * kLog2E : 0.0f;
    return {true, slope, places_.position(bh / s_.H), places_.mask(bh / s_.H)};
  }
  float factor() const { return float(op_.scale) * kLog2E; }

  void append(int64_t bh) const {
    T *keys = head(op_.k_cache, bh), *values = head(op_.v_cache, bh);
    for (int64_t t = 0; t < s_.T; ++t) {
      const T *key = rows(bh, 1).row(t), *value = rows(bh, 2).row(t);
      for (int64_t d = 0; d < s_.D; ++d) keys[cached_key(op_.past + t, d, S_, s_.D)] = key[d];
      std::copy(value, value + s_.D, values + (op_.past + t) * s_.D);
    }
  }

  void many(int64_t bh, int64_t first, int64_t end) const {
    int64_t D = s_.D;
    auto w = in_scratch<ForwardBlocks>(D);
    for (int64_t at = first; at < end; at += kStrip)
      w.strips[w.count++].start(rows(bh, 0), at, std::min(kStrip, end - at), op_.past, D, factor(), sight(bh), w.rows);
    auto pack = [&](int64_t at, int64_t n, float* k, float* v) {
      pack_keys(head(op_.k_cache, bh), at, n, k, w.rows);
      pack_rows(Rows<const T>{head(op_.v_cache, bh), D}, at, n, D, v, D);
    };
    attend_all(w, sight(bh), op_.past + end, D, norms_, bh, nullptr, pack);
    auto out = out_rows<T>(op_.out, s_, bh / s_.H, bh % s_.H);
    for (int64_t i = 0; i < w.count; ++i)
      finish(w.strips[i], D, 1.0f, out, w.strips[i].first - op_.past, nullptr, w.rows);
  }

  // Calls fn(group, width, j, count) for the vectors of keys j .. j + count - 1 of [first, first + n): the vector at d
  // is at group + d * width. The last group of a cache may be narrower than a vector.
  template <class F>
  void for_key_vectors(const T* keys, int64_t first, int64_t n, F&& fn) const {
    for (int64_t at = first; at < first + n; at += kLanes) {
      int64_t group = at / kCacheGroup * kCacheGroup, width = std::min(kCacheGroup, S_ - group);
      fn(keys + group * s_.D + (at - group), width, at, std::min<int64_t>(kLanes, first + n - at));
    }
  }
  float largest_square(int64_t bh, int64_t first, int64_t n) const {
    Largest largest;
    for_key_vectors(head(op_.k_cache, bh), first, n, [&](const T* at, int64_t width, int64_t, int64_t count) {
      Vec square{};
      for (int64_t d = 0; d < s_.D; ++d) {
        Vec x = load_some(at + d * width, count);
        square = x * x + square;
      }
      for (int64_t lane = 0; lane < count; ++lane) largest.add(square[lane]);
    });
    return largest.value;
  }

  // Keys first .. first + n - 1 as rows [n, ld]. buffer: [ld, kLanes]
  void pack_keys(const T* keys, int64_t first, int64_t n, float* to, float* buffer) const {
    int64_t ld = round_up(s_.D, kLanes);
    std::fill(buffer + s_.D * kLanes, buffer + ld * kLanes, 0.0f);
    for_key_vectors(keys, first, n, [&](const T* at, int64_t width, int64_t j, int64_t count) {
      for (int64_t d = 0; d < s_.D; ++d) store(buffer + d * kLanes, load_some(at + d * width, count));
      transpose(buffer, ld, kLanes, kLanes, to + (j - first) * ld, 1.0f);
    });
  }

  void few(int64_t bh) const {
    int64_t D = s_.D;
    Sight seen = sight(bh);
    auto w = in_scratch<RowBlocks>(D);
    for (int64_t t = 0; t < s_.T; ++t) {
      pack_rows(rows(bh, 0), t, 1, D, w.row[t].query, D, factor());
      std::fill(w.row[t].sum, w.row[t].sum + round_up(D, kLanes), 0.0f);
      w.row[t].place = op_.past + t, w.row[t].largest = -INFINITY, w.row[t].total = 0;
    }
    const T *keys = head(op_.k_cache, bh), *values = head(op_.v_cache, bh);
    for (int64_t first = (keys_ - 1) / kKeyBlock * kKeyBlock; first >= 0; first -= kKeyBlock)
      for (int64_t t = 0; t < s_.T; ++t) {
        int64_t n = std::min(kKeyBlock, w.row[t].place + 1 - first);
        if (n > 0) attend_row(w.row[t], seen, first, n, keys, values, w.scores);
      }
    auto out = out_rows<T>(op_.out, s_, bh / s_.H, bh % s_.H);
    for (int64_t t = 0; t < s_.T; ++t) {
      const QueryRow& row = w.row[t];
      float scale = row.total == 0 ? 0 : 1.0f / row.total;
      for_lanes(D, [&](auto load_at, auto store_at) { store_at(out.row(t), load_at(row.sum) * scale); });
    }
  }

  // Raw scores of the keys first .. first + n - 1 (rounded up to whole vectors) for one query.
  void score(const QueryRow& row, int64_t first, int64_t n, const T* keys, float* scores) const {
    int64_t D = s_.D;
    const T* group = keys + first * D;
    if (n == kKeyBlock) {
      Vec dot[kKeyBlock / kLanes] = {};
      for (int64_t d = 0; d < D; ++d)
        for (int64_t g = 0; g < kGroups; ++g)
          for (int64_t c = 0; c < kCacheGroup / kLanes; ++c) {
            Vec& x = dot[g * (kCacheGroup / kLanes) + c];
            x = row.query[d] * load(group + (g * D + d) * kCacheGroup + c * kLanes) + x;
          }
      for (int64_t c = 0; c < kKeyBlock / kLanes; ++c) store(scores + c * kLanes, dot[c]);
      return;
    }
    for_key_vectors(keys, first, n, [&](const T* at, int64_t width, int64_t j, int64_t count) {
      Vec dot{};
      for (int64_t d = 0; d < D; ++d) dot = row.query[d] * load_some(at + d * width, count) + dot;
      store(scores + (j - first), dot);
    });
  }

  void attend_row(QueryRow& row, const Sight& seen, int64_t first, int64_t n, const T* keys, const T* values,
                  float* scores) const {
    score(row, first, n, keys, scores);
    Vec largest = splat(-INFINITY), position = splat(seen.position[row.place]);
    for (int64_t c = 0; c < n; c += kLanes) {
      Vec x = load(scores + c);
      int64_t count = std::min<int64_t>(kLanes, n - c);
      if (seen.slope != 0) x = seen.slope * (load_some(seen.position + first + c, count) - position) + x;
      for (int64_t lane = 0; seen.mask && lane < count; ++lane)
        if (!seen.mask[first + c + lane]) x[lane] = -INFINITY;
      x = select(lane_numbers() < int32_t(count), x, splat(-INFINITY));
      store(scores + c, x);
      largest = max(x, largest);
    }
    Vec before = splat(row.largest), after = max(splat(max_lane(largest)), before);
    Vec base = select(after > -INFINITY, after, Vec{});
    for (int64_t c = 0; c < n; c += kLanes) store(scores + c, exp2_negative(load(scores + c) - base));
    float part[4] = {0, 0, 0, 0};
    for (int64_t j = 0; j < n; ++j) part[j % 4] += scores[j];
    float shrink = exp2_negative(before - base)[0];
    row.largest = after[0];
    float more = (part[0] + part[1]) + (part[2] + part[3]);
    row.total = row.total * shrink + more;
    if (more == 0 && shrink == 1) return;  // all too far away: their values would change no bit
    add_values(row, values + first * s_.D, n, scores, shrink);
  }

  // row.sum = row.sum * shrink + p v, v [n, D]: a few vectors of the row at a time, to read v in one sweep.
  void add_values(const QueryRow& row, const T* v, int64_t n, const float* p, float shrink) const {
    constexpr int kAtOnce = 64 / kLanes;
    int64_t D = s_.D, d = 0;
    for (; d + kAtOnce * kLanes <= D; d += kAtOnce * kLanes) {
      Vec sum[kAtOnce];
#pragma GCC unroll 16
      for (int i = 0; i < kAtOnce; ++i) sum[i] = load(row.sum + d + i * kLanes) * shrink;
      for (int64_t j = 0; j < n; ++j) {
        const T* at = v + j * D + d;
#pragma GCC unroll 16
        for (int i = 0; i < kAtOnce; ++i) sum[i] = load(at + i * kLanes) * p[j] + sum[i];
      }
#pragma GCC unroll 16
      for (int i = 0; i < kAtOnce; ++i) store(row.sum + d + i * kLanes, sum[i]);
    }
    for (; d < D; d += kLanes) {
      int64_t count = std::min<int64_t>(kLanes, D - d);
      Vec sum = load(row.sum + d) * shrink;
      for (int64_t j = 0; j < n; ++j) sum = load_some(v + j * D + d, count) * p[j] + sum;
      store(row.sum + d, sum);
    }
  }

  const AttentionCached& op_;
  AttentionShape s_;
  int64_t S_, keys_;
  Places places_;
  KeyNorms norms_;
};

}  // namespace

void attention_cached(const AttentionCached& op) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { Cached<T>(op).run(); });
}

}  // namespace ds::DS_ISA
