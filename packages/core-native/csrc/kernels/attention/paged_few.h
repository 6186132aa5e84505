// Attention of single rows over pages: keys (for scores) and elements of D (for sums) are the lanes. The rows that
// share a key-value head go together, so that each key and value is read once for all of them. The arithmetic of each
// row is that of a strip of flash_forward.h.
#pragma once
#include "paged_cpu.h"

namespace ds::DS_ISA {

// Keys whose softmax is a sum of its own; segments are put together newest first.
constexpr int64_t kSegment = 512;
static_assert(kSegment % kKeyBlock == 0);

constexpr int64_t kRowsAtOnce = 16;

// Sums of probability * value, relative to `largest`, and the sum of the probabilities.
struct RowSums {
  float* sum;  // [D], and room for a whole vector
  float largest, total;

  void clear(int64_t D) {
    std::fill(sum, sum + round_up(D, kLanes), 0.0f);
    largest = -INFINITY, total = 0;
  }
  // Takes those of an older segment in.
  void join(const float* older, float older_largest, float older_total, int64_t D) {
    float after = std::max(older_largest, largest), base = after > -INFINITY ? after : 0;
    Vec own = exp2_negative(splat(largest - base)), other = exp2_negative(splat(older_largest - base));
    for (int64_t d = 0; d < D; d += kLanes) store(sum + d, fma(load(older + d), other, load(sum + d) * own));
    total = fma(splat(older_total), other, splat(total) * own)[0];
    largest = after;
  }
};

// One query head of one row.
struct FewRow {
  float* query;         // [D], in units of log 2
  float* scores;        // [kSegment]: of the segment's keys, then their probabilities
  int64_t place, from;  // sees the tokens from .. place
  float slope;
  RowSums segment, whole;
  float segment_largest;  // of the scores; infinity where one is NaN
};

struct FewBlocks {
  FewRow rows[kRowsAtOnce];
  int64_t count = 0;  // of rows in use

  FewBlocks(Pieces& pieces, int64_t D) {
    int64_t padded = round_up(D, kLanes);
    for (FewRow& row : rows) {
      row.query = pieces.take(D), row.scores = pieces.take(kSegment);
      row.segment.sum = pieces.take(padded), row.whole.sum = pieces.take(padded);
    }
  }
  int64_t from() const {
    int64_t least = rows[0].from;
    for (int64_t i = 1; i < count; ++i) least = std::min(least, rows[i].from);
    return least;
  }
  int64_t end() const {
    int64_t most = rows[0].place;
    for (int64_t i = 1; i < count; ++i) most = std::max(most, rows[i].place);
    return most + 1;
  }
};

// Registers for sums, and the rows of a tile.
#if defined(__AVX512F__)
constexpr int kFewRegisters = 16, kTileRowsMost = 8;
#else
constexpr int kFewRegisters = 8, kTileRowsMost = 4;
#endif

// Pages lie anywhere, so no hardware knows where the next ones are. With few rows reading is all there is to do, and
// hints only take slots away; with several, the next keys come while these are multiplied.
template <int rows>
constexpr bool kFetchAhead = rows >= 4;

// Calls body.operator()<n>(i) for i = 0 .. count - 1 in pieces of n = most, most / 2, ..., 1.
template <int most, class Body>
void in_pieces(int64_t count, Body&& body, int64_t from = 0) {
  for (; from + most <= count; from += most) body.template operator()<most>(from);
  if constexpr (most > 1) in_pieces<most / 2>(count, body, from);
}

// Calls body.operator()<rows, vectors>(row, vector) for tiles whose sums fit into the registers.
template <class Body>
void in_tiles(int64_t rows, int64_t vectors, Body&& body) {
  in_pieces<kTileRowsMost>(rows, [&]<int r>(int64_t row) {
    in_pieces<kFewRegisters / r>(vectors, [&]<int v>(int64_t vector) { body.template operator()<r, v>(row, vector); });
  });
}

// The keys of a segment of which the rows see any.
struct Span {
  int64_t segment;    // its first place
  int64_t from, end;  // what any row sees of it
  int64_t start() const { return from / kLanes * kLanes; }
  int64_t newest() const { return (end - 1) / kKeyBlock * kKeyBlock; }
  int64_t oldest() const { return from / kKeyBlock * kKeyBlock; }
};

// Raw scores of some vectors of keys for some rows.
template <int rows, int vectors, bool kNarrow, class K>
void score_tile(const FewRow* row, const KeyVectors<K>& keys, int64_t first, int64_t D, int64_t to) {
  Vec dot[rows][vectors] = {};
  constexpr int64_t kLine = std::max<int64_t>(1, 64 / int64_t(kLanes * sizeof(K)));
  int64_t ahead = kFetchAhead<rows> ? std::min<int64_t>(vectors, keys.count - vectors - first) : 0;
  for (int64_t d = 0, offset = 0; d < D; ++d, offset += keys.step) {
    if (kFetchAhead<rows> && d % kLine == 0)
      for (int64_t v = 0; v < ahead; ++v) __builtin_prefetch(keys.low[first + vectors + v] + offset);
    Vec x[vectors];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) x[v] = keys.template at<kNarrow>(first + v, offset);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      Vec q = splat(row[r].query[d]);
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) dot[r][v] = fma(q, x[v], dot[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) store(row[r].scores + to + v * kLanes, dot[r][v]);
}

inline float largest_lane(Vec v) {
#pragma GCC unroll 8
  for (int width = kLanes / 2; width; width /= 2) v = max(v, __builtin_shuffle(v, lane_numbers() ^ width));
  return v[0];
}

// Scores of a segment's keys for all rows, -infinity for what a row does not see.
template <class K>
void score_segment(FewBlocks& w, const HeadPages<K>& pages, const Span& span, int64_t D) {
  int64_t start = span.start(), to = start - span.segment;
  KeyVectors<K> keys = pages.key_vectors(start, span.from, span.end);
  in_tiles(w.count, keys.count, [&]<int rows, int vectors>(int64_t r, int64_t v) {
    auto tile = keys.narrow ? score_tile<rows, vectors, kHalvesApart, K> : score_tile<rows, vectors, false, K>;
    tile(w.rows + r, keys, v, D, to + v * kLanes);
  });
  KeyVectors<float> scales{};
  if (pages.scaled()) scales = pages.key_scales(start, span.from, span.end);
  for (int64_t i = 0; i < w.count; ++i) {
    FewRow& row = w.rows[i];
    Vec largest = splat(-INFINITY), place = splat(float(row.place));
    for (int v = 0; v < keys.count; ++v) {
      float* at = row.scores + to + v * kLanes;
      IVec token = lane_numbers() + int32_t(start + v * kLanes);
      Vec x = load(at);
      if (pages.scaled()) x *= scales.narrow ? scales.template at<true>(v, 0) : scales.template at<false>(v, 0);
      if (row.slope != 0) x = fma(splat(row.slope), __builtin_convertvector(token, Vec) - place, x);
      x = select((token >= int32_t(row.from)) & (token <= int32_t(row.place)), x, splat(-INFINITY));
      store(at, x);
      largest = max(select(x == x, x, splat(INFINITY)), largest);
    }
    row.segment_largest = largest_lane(largest);
  }
}

// Adds p[0], p[4], ... to one sum, p[1], p[5], ... to the next and so on, and gives their total.
inline float sum_in_four(const float* p, int64_t n) {
  typedef float Four __attribute__((vector_size(16)));
  Four part{};
  for (int64_t j = 0; j < n; j += 4) {
    Four x;
    std::memcpy(&x, p + j, sizeof x);
    part += x;
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// From the scores of a block's keys, p [n] with n whole vectors, to probabilities relative to the new maximum. Returns
// what older sums are to be multiplied by.
inline float soften_row(RowSums& sums, float* p, int64_t n) {
  Vec largest = splat(-INFINITY);
  for (int64_t c = 0; c < n; c += kLanes) largest = max(load(p + c), largest);
  Vec before = splat(sums.largest), after = max(splat(largest_lane(largest)), before);
  Vec base = select(after > -INFINITY, after, Vec{});
  for (int64_t c = 0; c < n; c += kLanes) store(p + c, exp2_negative(load(p + c) - base));
  float shrink = exp2_negative(before - base)[0];
  sums.largest = after[0];
  sums.total = fma(splat(sums.total), splat(shrink), splat(sum_in_four(p, n)))[0];
  return shrink;
}

// What a newer block makes of the older sums, for the blocks of a segment.
using Shrinks = float[kSegment / kKeyBlock][kRowsAtOnce];

// Probabilities of a segment's keys for all rows, times the scales of the values.
template <class K>
void soften_segment(FewBlocks& w, const HeadPages<K>& pages, const Span& span, Shrinks& shrinks) {
  int64_t start = span.start();
  for (int64_t first = span.newest(); first >= span.oldest(); first -= kKeyBlock) {
    int64_t low = std::max(first, start), n = round_up(std::min(span.end, first + kKeyBlock) - low, kLanes);
    for (int64_t i = 0; i < w.count; ++i)
      shrinks[(first - span.segment) / kKeyBlock][i] =
          soften_row(w.rows[i].segment, w.rows[i].scores + (low - span.segment), n);
  }
  if (!pages.scaled()) return;
  KeyVectors<float> scales = pages.value_scales(start, span.from, span.end);
  for (int64_t i = 0; i < w.count; ++i)
    for (int v = 0; v < scales.count; ++v) {
      float* p = w.rows[i].scores + (start - span.segment) + v * kLanes;
      store(p, load(p) * (scales.narrow ? scales.template at<true>(v, 0) : scales.template at<false>(v, 0)));
    }
}

// Sums over a segment's tokens for some rows and vectors of D, block by block: sum = sum * shrink + p v.
// tail: elements of the only vector, where it is not whole, else 0.
template <int rows, int vectors, class K>
void value_tile(FewRow* row, const HeadPages<K>& pages, const Span& span, const Shrinks& shrinks, int64_t first_row,
                int64_t D, int64_t d, int64_t tail) {
  Vec sum[rows][vectors] = {};
  for (int64_t block = span.newest(); block >= span.oldest(); block -= kKeyBlock) {
    const float* shrink = shrinks[(block - span.segment) / kKeyBlock] + first_row;
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) sum[r][v] *= shrink[r];
    int64_t end = std::min(span.end, block + kKeyBlock);
    pages.for_pages(std::max(span.from, block), end, [&](int64_t first, int64_t n) {
      const K* at = pages.value(first) + d;
      int64_t ahead = kFetchAhead<rows> ? pages.value(std::min(first + n, end - 1)) + d - at : 0;
      for (int64_t j = first - span.segment; n > 0; --n, ++j, at += D) {
        for (int64_t i = 0; kFetchAhead<rows> && i < vectors * kLanes; i += int64_t(64 / sizeof(K)))
          __builtin_prefetch(at + ahead + i);
        Vec x[vectors];
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) x[v] = tail ? load_tail(at, tail) : load(at + v * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
          Vec p = splat(row[r].scores[j]);
#pragma GCC unroll 16
          for (int v = 0; v < vectors; ++v) sum[r][v] = fma(p, x[v], sum[r][v]);
        }
      }
    });
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) store(row[r].segment.sum + d + v * kLanes, sum[r][v]);
}

// Lets the rows see the keys of a segment; the sums are in `segment`.
template <class K>
void take_segment(FewBlocks& w, const HeadPages<K>& pages, const Span& span, int64_t D) {
  for (int64_t i = 0; i < w.count; ++i) w.rows[i].segment.clear(D);
  score_segment(w, pages, span, D);
  // Beside what newer segments hold it may all be nothing: then its values would change no bit.
  bool matters = false;
  for (int64_t i = 0; i < w.count; ++i) matters |= !(w.rows[i].segment_largest - w.rows[i].whole.largest < kNegligible);
  if (!matters) return;
  Shrinks shrinks;
  soften_segment(w, pages, span, shrinks);
  auto add = [&]<int rows, int vectors>(int64_t r, int64_t d, int64_t tail) {
    value_tile<rows, vectors>(w.rows + r, pages, span, shrinks, r, D, d, tail);
  };
  in_tiles(w.count, D / kLanes, [&]<int rows, int vectors>(int64_t r, int64_t v) {
    add.template operator()<rows, vectors>(r, v * kLanes, 0);
  });
  if (D % kLanes)
    in_pieces<kTileRowsMost>(
        w.count, [&]<int rows>(int64_t r) { add.template operator()<rows, 1>(r, D / kLanes * kLanes, D % kLanes); });
}

}  // namespace ds::DS_ISA
