// Few new tokens of a sequence: its rows one by one (paged_few.h), the rows that share a key-value head together.
// Many: the strips of the training pass (flash_forward.h). Both do the same arithmetic for each row.
#include "paged_attention.h"

#include "../../runtime/pool.h"
#include "flash_forward.h"
#include "paged_few.h"

namespace ds::DS_ISA {
namespace {

// Up to this many new tokens of a sequence go one by one: beyond, strips are faster even with empty lanes.
constexpr int64_t kFewTokens = 12;
// With fewer heads and sequences than this the segments of a sequence are work of their own.
constexpr int64_t kEnoughHeads = 16;

// Sums over all segments so far, as Strip has them of one.
struct WholeStrip {
  float *sum, *largest, *total;
};

struct ManyBlocks : ForwardBlocks {
  WholeStrip whole[kStripsPerChunk];
  ManyBlocks(Pieces& pieces, int64_t D) : ForwardBlocks(pieces, D) {
    for (WholeStrip& s : whole) {
      s.sum = pieces.take(round_up(D, kLanes) * kStrip);
      s.largest = pieces.take(kStrip), s.total = pieces.take(kStrip);
    }
  }
};

// The arithmetic of RowSums::join. Leaves the strip as for the next segment.
void join(const WholeStrip& whole, const Strip& strip, int64_t ld) {
  for (int64_t c = 0; c < strip.width; c += kLanes) {
    Vec newer = load(whole.largest + c), older = load(strip.largest + c), after = max(older, newer);
    Vec base = select(after > -INFINITY, after, Vec{});
    Vec own = exp2_negative(newer - base), other = exp2_negative(older - base);
    for (int64_t i = c; i < ld * strip.width; i += strip.width) {
      store(whole.sum + i, fma(load(strip.sum + i), other, load(whole.sum + i) * own));
      store(strip.sum + i, Vec{});
    }
    store(whole.total + c, fma(load(strip.total + c), other, load(whole.total + c) * own));
    store(whole.largest + c, after);
    store(strip.total + c, Vec{});
    store(strip.largest + c, splat(-INFINITY));
  }
}

// What a thread does at once. Few: rows `first` .. of the T * H / G of a key-value head, whose sums of each segment go
// to `parts` where the segments are cut. Many: queries `first` .. `end` - 1 of a query head.
struct Task {
  bool few;
  int64_t sequence, head, first, end;
  int64_t newest, oldest;  // segments
  float* parts;            // [rows, segments, padded D + 2], this piece's first; or null
  int64_t part_stride;     // from row to row
  double cost;
};

template <class T, class K>
class Paged {
 public:
  explicit Paged(const PagedAttention& op)
      : op_(op), H_(op.heads), G_(op.kv.heads()), D_(op.kv.size()), padded_(round_up(D_, kLanes)) {}

  void run() {
    op_.validate();
    plan();
    parallel_for(int64_t(tasks_.size()), [&](int64_t i) {
      const Task& task = tasks_[size_t(i)];
      task.few ? few(task) : many(task);
    });
    parallel_for(int64_t(cut_.size()), [&](int64_t i) { put_together(cut_[size_t(i)]); });
  }

 private:
  int64_t group() const { return H_ / G_; }
  int64_t segments(const Task& task) const { return task.newest - task.oldest + 1; }
  int64_t part_size() const { return padded_ + 2; }
  float factor() const { return float(op_.scale) * kLog2E; }
  float slope(int64_t h) const { return op_.slopes ? op_.slopes.as<float>()[h] * kLog2E : 0.0f; }
  T* out_row(int64_t r, int64_t h) const { return op_.out.as<T>() + (r * H_ + h) * D_; }

  // Cuts the work by its own size alone; the longest pieces first.
  void plan() {
    const PagedRows& rows = op_.rows;
    int64_t S = rows.sequences(), longest = 0, parts = 0;
    bool cut = S * G_ < kEnoughHeads;
    for (int64_t s = 0; s < S; ++s) {
      int64_t n = rows.count(s), tokens = rows.tokens(s);
      if (n == 0) continue;
      if (n > kFewTokens) longest = std::max(longest, tokens);
      bool few = n <= kFewTokens;
      int64_t all = few ? n * group() : n, step = few ? kRowsAtOnce : kStrip * kStripsPerChunk;
      for (int64_t head = 0; head < (few ? G_ : H_); ++head)
        for (int64_t first = 0; first < all; first += step) {
          int64_t end = std::min(all, first + step);
          int64_t newest = rows.past_of(s) + (few ? (end - 1) / group() : end - 1);
          int64_t oldest = std::max<int64_t>(0, rows.past_of(s) + (few ? first / group() : first) - op_.back());
          Task task{few, s, head, first, end, newest / kSegment, oldest / kSegment, nullptr, 0, 0};
          task.cost = double(end - first + (few ? 4 : 0)) * double(newest - oldest + 1);
          tasks_.push_back(task);
          if (few && cut && segments(task) > 1) parts += (end - first) * segments(task) * part_size();
        }
    }
    positions_.resize(size_t(longest));
    for (int64_t j = 0; j < longest; ++j) positions_[size_t(j)] = float(j);
    if (cut) cut_segments(parts);
    std::stable_sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });
  }
  void cut_segments(int64_t parts) {
    parts_.resize(size_t(parts));
    float* next = parts_.data();
    std::vector<Task> pieces;
    for (Task task : tasks_) {
      if (!task.few || segments(task) == 1) {
        pieces.push_back(task);
        continue;
      }
      task.parts = next;
      task.part_stride = segments(task) * part_size();
      next += (task.end - task.first) * task.part_stride;
      cut_.push_back(task);
      for (int64_t segment = task.oldest; segment <= task.newest; ++segment) {
        Task piece = task;
        piece.newest = piece.oldest = segment;
        piece.parts = task.parts + (segment - task.oldest) * part_size();
        piece.cost = task.cost / double(segments(task));
        pieces.push_back(piece);
      }
    }
    tasks_ = std::move(pieces);
  }

  HeadPages<K> pages(int64_t s, int64_t g) const { return {op_.kv, op_.rows.table_of(s), g}; }

  void few(const Task& task) const {
    auto w = in_scratch<FewBlocks>(D_);
    HeadPages<K> of = pages(task.sequence, task.head);
    for (int64_t i = task.first; i < task.end; ++i) start(w.rows[w.count++], task, i);
    for (int64_t segment = task.newest; segment >= task.oldest; --segment) {
      int64_t first = segment * kSegment, from = std::max(first, w.from()), end = std::min(first + kSegment, w.end());
      if (from >= end) continue;
      take_segment(w, of, {first, from, end}, D_);
      for (int64_t i = 0; i < w.count && !task.parts; ++i) {
        const RowSums& part = w.rows[i].segment;
        w.rows[i].whole.join(part.sum, part.largest, part.total, D_);
      }
    }
    for (int64_t i = 0; i < w.count; ++i) {
      if (!task.parts) {
        finish_row(w.rows[i].whole, task, task.first + i);
        continue;
      }
      const RowSums& part = w.rows[i].segment;
      float* to = task.parts + i * task.part_stride;
      std::copy(part.sum, part.sum + padded_, to);
      to[padded_] = part.largest, to[padded_ + 1] = part.total;
    }
  }
  void start(FewRow& row, const Task& task, int64_t i) const {
    int64_t token = i / group(), h = task.head * group() + i % group();
    const T* query = op_.q.as<T>() + ((op_.rows.start(task.sequence) + token) * H_ + h) * D_;
    pack_rows(Rows<const T>{query, D_}, 0, 1, D_, row.query, D_, factor());
    row.place = op_.rows.past_of(task.sequence) + token;
    row.from = std::max<int64_t>(0, row.place - op_.back());
    row.slope = slope(h);
    row.segment.clear(D_), row.whole.clear(D_);
  }
  void finish_row(const RowSums& sums, const Task& task, int64_t i) const {
    T* out = out_row(op_.rows.start(task.sequence) + i / group(), task.head * group() + i % group());
    float scale = sums.total == 0 ? 0 : 1.0f / sums.total;
    for_lanes(D_, [&](auto load_at, auto store_at) { store_at(out, load_at(sums.sum) * scale); });
  }
  void put_together(const Task& task) const {
    struct Sum {
      float* data;
      Sum(Pieces& pieces, int64_t n) : data(pieces.take(n)) {}
    };
    RowSums whole{in_scratch<Sum>(padded_).data, 0, 0};
    for (int64_t i = task.first; i < task.end; ++i) {
      const float* part = task.parts + (i - task.first) * task.part_stride;
      whole.clear(D_);
      for (int64_t segment = segments(task) - 1; segment >= 0; --segment) {
        const float* own = part + segment * part_size();
        whole.join(own, own[padded_], own[padded_ + 1], D_);
      }
      finish_row(whole, task, i);
    }
  }

  void many(const Task& task) const {
    int64_t s = task.sequence, h = task.head, past = op_.rows.past_of(s), start = op_.rows.start(s);
    int64_t window = op_.back() < op_.rows.tokens(s) ? op_.window : 0;
    Sight sight{true, slope(h), positions_.data(), nullptr};
    sight.window = window;
    auto w = in_scratch<ManyBlocks>(D_);
    Rows<const T> query{op_.q.as<T>() + (start * H_ + h) * D_, H_ * D_};
    for (int64_t at = task.first; at < task.end; at += kStrip) {
      Strip& strip = w.strips[w.count];
      strip.start(query, at, std::min(kStrip, task.end - at), past, D_, factor(), sight, w.rows);
      const WholeStrip& whole = w.whole[w.count++];
      std::fill(whole.sum, whole.sum + padded_ * strip.width, 0.0f);
      std::fill(whole.largest, whole.largest + strip.width, -INFINITY);
      std::fill(whole.total, whole.total + strip.width, 0.0f);
    }
    attend_segments(w, sight, pages(s, h / group()), task);
    Rows<T> out{out_row(start, h), H_ * D_};
    for (int64_t i = 0; i < w.count; ++i) {
      Strip strip = w.strips[i];
      if (segments(task) > 1) strip.sum = w.whole[i].sum, strip.total = w.whole[i].total;
      finish(strip, D_, 1.0f, out, strip.first - past, nullptr, w.rows);
    }
  }

  void attend_segments(ManyBlocks& w, const Sight& sight, const HeadPages<K>& of, const Task& task) const {
    int64_t past = op_.rows.past_of(task.sequence), end = past + task.end;
    int64_t from = std::max<int64_t>(0, past + task.first - op_.back());
    float key_scales[kKeyBlock] = {}, value_scales[kKeyBlock] = {};
    for (int64_t first = (end - 1) / kKeyBlock * kKeyBlock; first + kKeyBlock > from; first -= kKeyBlock) {
      int64_t n = std::min(kKeyBlock, end - first), low = std::max(first, from);
      pack_keys(of.key_vectors(low / kLanes * kLanes, low, first + n), first, low, D_, w.k);
      pack_values(of, first, low, first + n, w.v);
      if (of.scaled()) {
        pack_keys(of.key_scales(low / kLanes * kLanes, low, first + n), first, low, 1, key_scales);
        pack_keys(of.value_scales(low / kLanes * kLanes, low, first + n), first, low, 1, value_scales);
      }
      BlockScales scales = of.scaled() ? BlockScales{key_scales, value_scales} : BlockScales{};
      for (int64_t i = 0; i < w.count; ++i) {
        const Strip& strip = w.strips[i];
        if (first >= strip.first + strip.rows || sight.leaves_behind(first + n - 1, strip.first)) continue;
        attend(strip, sight, first, n, D_, {w.k, 1, kKeyBlock}, w.v, w.scores, nullptr, scales);
      }
      if (segments(task) > 1 && (first % kSegment == 0 || first <= from))
        for (int64_t i = 0; i < w.count; ++i) join(w.whole[i], w.strips[i], padded_);
    }
  }

  // Vectors from the one with `low` on to [D, kKeyBlock], with zeros for what stands before them in the block at
  // `first`.
  template <class E>
  static void pack_keys(const KeyVectors<E>& keys, int64_t first, int64_t low, int64_t D, float* to) {
    int64_t hidden = low / kLanes * kLanes - first;
    auto pack = [&]<bool narrow>() {
      for (int64_t d = 0; d < D; ++d, to += kKeyBlock) {
        std::fill(to, to + hidden, 0.0f);
        for (int v = 0; v < keys.count; ++v)
          store(to + hidden + v * kLanes, keys.template at<narrow>(v, d * keys.step));
      }
    };
    keys.narrow ? pack.template operator()<true>() : pack.template operator()<false>();
  }
  void pack_values(const HeadPages<K>& of, int64_t first, int64_t low, int64_t end, float* to) const {
    std::fill(to, to + (low - first) * D_, 0.0f);
    of.for_pages(low, end, [&](int64_t j, int64_t n) {
      pack_rows(Rows<const K>{of.value(j), D_}, 0, n, D_, to + (j - first) * D_, D_);
    });
  }

  const PagedAttention& op_;
  int64_t H_, G_, D_, padded_;
  std::vector<Task> tasks_, cut_;
  std::vector<float> parts_, positions_;
};

}  // namespace

void paged_attention(const PagedAttention& op) {
  dispatch_paged(op.q.dtype, op.kv.keys.dtype, [&]<class T, class K>() { Paged<T, K>(op).run(); });
}

}  // namespace ds::DS_ISA
