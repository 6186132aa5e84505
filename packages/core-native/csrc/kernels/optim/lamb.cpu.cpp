#include "lamb.h"

#include <algorithm>
#include <vector>

#include "../common/wide.h"
#include "lamb_trust.h"
#include "sweep.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kBlock = 4096;  // elements summed before the blocks' sums are added in order
constexpr int64_t kBlocksPerChunk = 4;

// Squares summed in f64, element i in chain i % 16 whatever the vector's width. A square of a float is exact in f64, so
// it does not matter whether the compiler fuses the addition.
class SquareChains {
 public:
  // `i`: of the vector's first element.
  void add(int64_t i, Vec v) {
    constexpr int kVectors = kChains / kLanes;
    WidePair w = widen(v);
    Wide* pair = chains_ + 2 * (i / kLanes % kVectors);
    pair[0] += w.low * w.low;
    pair[1] += w.high * w.high;
  }
  double total() const {
    double lane[kChains], sum = 0;
    std::memcpy(lane, chains_, sizeof lane);
    for (double x : lane) sum += x;
    return sum;
  }

 private:
  static constexpr int kChains = 16;
  Wide chains_[kChains / kWideLanes] = {};
};

struct Squares {
  double weights, directions;
};

inline Vec direction(Vec p, Vec m, Vec v, Vec eps, Vec weight_decay) {
  return fma(weight_decay, p, m / (sqrt(v) + eps));
}

// The moments of elements [begin, begin + n), one block.
template <class G>
Squares advance_block(const LambMoments& op, int64_t begin, int64_t n) {
  const float* p = op.p.as<float>() + begin;
  float *m = op.m.as<float>() + begin, *v = op.v.as<float>() + begin;
  const G* grad = op.grad.as<G>() + begin;
  Vec grad_scale = splat(float(op.grad_scale)), eps = splat(float(op.eps)), decay = splat(float(op.weight_decay));
  Vec beta1 = splat(float(op.beta1)), rest1 = splat(float(1 - op.beta1));
  Vec beta2 = splat(float(op.beta2)), rest2 = splat(float(1 - op.beta2));
  SquareChains weights, directions;
  int64_t i = 0;
  for_lanes(n, [&](auto load_at, auto store_at) {
    Vec g = load_at(grad) * grad_scale, weight = load_at(p);
    Vec first = fma(beta1, load_at(m), rest1 * g), second = fma(beta2, load_at(v), (rest2 * g) * g);
    store_at(m, first);
    store_at(v, second);
    Vec u = direction(weight, first, second, eps, decay);
    // In the tail's padding m and v are 0, and so is u but where eps is 0, too.
    if (n - i < kLanes)
      for (int lane = int(n - i); lane < kLanes; ++lane) u[lane] = 0;
    weights.add(i, weight);
    directions.add(i, u);
    i += kLanes;
  });
  return {weights.total(), directions.total()};
}

}  // namespace

void lamb_moments(const LambMoments& op) {
  int64_t n = op.p.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<Squares> sums(static_cast<size_t>(blocks));
  dispatch_float(op.grad.dtype, [&]<class G>() {
    parallel_ranges(blocks, kBlocksPerChunk, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b)
        sums[size_t(b)] = advance_block<G>(op, b * kBlock, std::min(kBlock, n - b * kBlock));
    });
  });
  Squares total{};
  for (const Squares& s : sums) total.weights += s.weights, total.directions += s.directions;
  double* squares = op.squares.as<double>();
  squares[0] = op.accumulate ? squares[0] + total.weights : total.weights;
  squares[1] = op.accumulate ? squares[1] + total.directions : total.directions;
}

void lamb_step(const LambStep& op) {
  double trust = lamb_trust(op.squares.as<double>(), op.min_coefficient, op.max_coefficient);
  Vec step = splat(float(-op.rate * trust)), eps = splat(float(op.eps)), decay = splat(float(op.weight_decay));
  float* p = op.p.as<float>();
  const float *m = op.m.as<float>(), *v = op.v.as<float>();
  sweep(op.p.numel(), op.copy, op.p, [=](auto load_at, auto store_at) {
    Vec weight = load_at(p);
    weight = fma(step, direction(weight, load_at(m), load_at(v), eps, decay), weight);
    store_at(p, weight);
    return weight;
  });
}

}  // namespace ds::DS_ISA
