#include "reduce.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "../../runtime/pool.h"
#include "../common/wide.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kBlock = 4096;  // elements summed before the blocks' sums are added in order
constexpr int64_t kBlocksPerChunk = 8;

template <bool square>
inline void add(WidePair& total, Vec v) {
  WidePair w = widen(v);
  total.low += square ? w.low * w.low : w.low;
  total.high += square ? w.high * w.high : w.high;
}

template <bool square, class T>
double block_sum(const T* x, int64_t n) {
  WidePair total[2] = {};  // two pairs: the additions of one would wait for each other
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    add<square>(total[0], load(x + i));
    add<square>(total[1], load(x + i + kLanes));
  }
  for (; i < n; i += kLanes) add<square>(total[0], n - i >= kLanes ? load(x + i) : load_tail(x + i, n - i));
  Wide all = (total[0].low + total[1].low) + (total[0].high + total[1].high);
  double result = 0;
  for (int lane = 0; lane < kWideLanes; ++lane) result += all[lane];
  return result;
}

template <bool square>
void reduce(const Tensor& out, const Tensor& x, bool accumulate) {
  int64_t n = x.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(static_cast<size_t>(blocks));
  dispatch_float(x.dtype, [&]<class T>() {
    parallel_ranges(blocks, kBlocksPerChunk, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b)
        sums[size_t(b)] = block_sum<square>(x.as<T>() + b * kBlock, std::min(kBlock, n - b * kBlock));
    });
  });
  double total = 0;
  for (double s : sums) total += s;
  *out.as<double>() = accumulate ? *out.as<double>() + total : total;
}

// x - x is 0 for every finite x, and NaN for the others; a sum of zeros stays 0.
template <class T>
Vec nonfinite_mark(const T* x, int64_t n) {
  Vec mark{};
  for_lanes(n, [&](auto load_at, auto) {
    Vec v = load_at(x);
    mark += v - v;
  });
  return mark;
}

template <class T>
int64_t first_nonfinite(const T* x, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kBlock) {
    int64_t n = std::min(kBlock, end - i);
    if (sum(nonfinite_mark(x + i, n)) == 0) continue;
    for (int64_t j = i; j < i + n; ++j)
      if (nonfinite_mark(x + j, 1)[0] != 0) return j;
  }
  return -1;
}

template <class T>
int32_t row_argmax(const T* x, int64_t V) {
  // Each lane keeps its first largest element; a NaN, once met, stays.
  Vec best = splat(-INFINITY);
  IVec index{}, at{};
  for (int lane = 0; lane < kLanes; ++lane) at[lane] = index[lane] = lane;
  int64_t i = 0;
  for (; i + kLanes <= V; i += kLanes, at += kLanes) {
    Vec v = load(x + i);
    IVec better = (v > best) | ((v != v) & (best == best));
    best = select(better, v, best);
    index = (at & better) | (index & ~better);
  }
  float leader = -INFINITY;
  int32_t winner = 0;
  auto offer = [&](float value, int32_t position) {
    bool better = value > leader || (value != value && leader == leader);
    bool equal = value == leader || (value != value && leader != leader);
    if (better || (equal && position < winner)) leader = value, winner = position;
  };
  for (int lane = 0; i > 0 && lane < kLanes; ++lane) offer(best[lane], index[lane]);
  for (; i < V; ++i) offer(load_tail(x + i, 1)[0], int32_t(i));
  return winner;
}

}  // namespace

void sum(const Sum& op) { reduce<false>(op.out, op.x, op.accumulate); }
void square_sum(const SquareSum& op) { reduce<true>(op.out, op.x, op.accumulate); }

void nonfinite_index(const NonfiniteIndex& op) {
  int64_t n = op.x.numel(), grain = kBlock * kBlocksPerChunk, chunks = (n + grain - 1) / grain;
  std::vector<int64_t> found(size_t(chunks), -1);
  dispatch_float(op.x.dtype, [&]<class T>() {
    parallel_for(chunks, [&](int64_t c) {
      found[size_t(c)] = first_nonfinite(op.x.as<T>(), c * grain, std::min(n, (c + 1) * grain));
    });
  });
  auto first = std::find_if(found.begin(), found.end(), [](int64_t i) { return i >= 0; });
  *op.out.as<double>() = first == found.end() ? -1 : double(*first);
}

void argmax(const Argmax& op) {
  int64_t R = op.x.rows(), V = op.x.dim(-1);
  dispatch_float(op.x.dtype, [&]<class T>() {
    parallel_ranges(R, std::max<int64_t>(1, kBlock / V), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) op.out.as<int32_t>()[r] = row_argmax(op.x.as<T>() + r * V, V);
    });
  });
}

}  // namespace ds::DS_ISA
