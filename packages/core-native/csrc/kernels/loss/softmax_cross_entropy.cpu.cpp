#include "softmax_cross_entropy.h"

#include <algorithm>
#include <vector>

#include "../../runtime/pool.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kSegment = 4096;     // logits whose maximum is taken at once: they stay in the first-level cache
constexpr int64_t kPieceSegments = 8;  // segments that a thread takes where rows alone are too few
constexpr int64_t kRowWiseRows = 16;   // with this many rows, whole rows balance well enough

// The largest logit of some, and the sum of exp(x - largest) over them.
struct Normaliser {
  float largest = -INFINITY, total = 0;

  void add(const Normaliser& other) {
    float m = std::max(largest, other.largest);
    // Nothing but -inf so far: any finite offset serves, and -inf - (-inf) would be NaN.
    float offset = m == -INFINITY ? 0 : m;
    total = total * std::exp(largest - offset) + other.total * std::exp(other.largest - offset);
    largest = m;
  }
};

template <class T>
Normaliser segment(const T* x, int64_t n) {
  Vec largest = splat(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = max(load(x + i), largest);
  Normaliser result{max_lane(largest), 0};
  for (int64_t j = i; j < n; ++j) result.largest = std::max(result.largest, load_tail(x + j, 1)[0]);
  float offset = result.largest == -INFINITY ? 0 : result.largest;
  Vec total{};
  for (i = 0; i + kLanes <= n; i += kLanes) total += exp(load(x + i) - offset);
  result.total = sum(total);
  for (; i < n; ++i) result.total += exp(load_tail(x + i, 1) - offset)[0];
  return result;
}

template <class T>
void write_loss(const SoftmaxCrossEntropy& op, int64_t r, const Normaliser& row) {
  int64_t target = op.targets.as<int32_t>()[r];
  double loss = 0;
  if (target != op.ignore_index)
    loss = double(row.largest) - load_tail(op.logits.as<T>() + r * op.logits.dim(1) + target, 1)[0] +
           std::log(double(row.total));
  op.losses.as<float>()[r] = float(loss);
}

// The gradient of the columns [begin, end) of row r.
template <class T>
void write_gradient(const SoftmaxCrossEntropy& op, int64_t r, const Normaliser& row, int64_t begin, int64_t end) {
  int64_t V = op.logits.dim(1), target = op.targets.as<int32_t>()[r], n = end - begin;
  T* d = op.dlogits.as<T>() + r * V + begin;
  if (target == op.ignore_index) {
    std::fill_n(d, n, T{});
    return;
  }
  const T* x = op.logits.as<T>() + r * V + begin;
  float factor = float(op.scale / row.total);
  bool here = target >= begin && target < end;
  float correct = here ? load_tail(x + (target - begin), 1)[0] : 0;  // before the gradient takes its place
  for_lanes(n, [&](auto load_at, auto store_at) { store_at(d, exp(load_at(x) - row.largest) * factor); });
  if (here) {
    float probability = exp(splat(correct - row.largest))[0] / row.total;
    store_tail(d + (target - begin), splat((probability - 1) * float(op.scale)), 1);
  }
}

template <class T>
void run(const SoftmaxCrossEntropy& op) {
  int64_t R = op.logits.dim(0), V = op.logits.dim(1), segments = (V + kSegment - 1) / kSegment;
  auto normaliser = [&](int64_t r, int64_t s) {
    return segment(op.logits.as<T>() + r * V + s * kSegment, std::min(kSegment, V - s * kSegment));
  };
  if (R >= kRowWiseRows || segments <= kPieceSegments) {
    // A row at a time: its second sweep finds it in the cache.
    parallel_ranges(R, std::max<int64_t>(1, kSegment / V), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        Normaliser row;
        for (int64_t s = 0; s < segments; ++s) row.add(normaliser(r, s));
        write_loss<T>(op, r, row);
        if (op.dlogits) write_gradient<T>(op, r, row, 0, V);
      }
    });
    return;
  }
  // Few long rows: all threads on every row. The segments and the order of their sum are those above.
  std::vector<Normaliser> parts(size_t(R * segments)), rows(static_cast<size_t>(R));
  parallel_ranges(R * segments, kPieceSegments, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) parts[size_t(i)] = normaliser(i / segments, i % segments);
  });
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t s = 0; s < segments; ++s) rows[size_t(r)].add(parts[size_t(r * segments + s)]);
    write_loss<T>(op, r, rows[size_t(r)]);
  }
  if (!op.dlogits) return;
  int64_t pieces = (segments + kPieceSegments - 1) / kPieceSegments, columns = kPieceSegments * kSegment;
  parallel_for(R * pieces, [&](int64_t i) {
    int64_t r = i / pieces, begin = i % pieces * columns;
    write_gradient<T>(op, r, rows[size_t(r)], begin, std::min(V, begin + columns));
  });
}

}  // namespace

void softmax_cross_entropy(const SoftmaxCrossEntropy& op) {
  op.check_targets();
  dispatch_float(op.logits.dtype, [&]<class T>() { run<T>(op); });
}

}  // namespace ds::DS_ISA
