#include "packed_linear.h"

#include <vector>

#include "../common/gelu.h"
#include "packed_product.h"

namespace ds::DS_ISA {
namespace {

// erf(x) within 1.2 ulp (N. Juffa's polynomials): 1 - e^p(|x|) beyond 0.9277, x + x q(x^2) below.
Vec erf(Vec x) {
  Vec t = select(x < 0.0f, -x, x), s = x * x;
  Vec r = fma(splat(-1.72853470e-5f), t, splat(3.83197126e-4f));
  Vec u = fma(splat(-3.88396438e-3f), t, splat(2.42546219e-2f));
  r = fma(r, s, u);
  r = fma(r, t, splat(-1.06777877e-1f));
  r = fma(r, t, splat(-6.34846687e-1f));
  r = fma(r, t, splat(-1.28717512e-1f));
  Vec far = 1.0f - exp(fma(r, t, -t));
  far = select(x < 0.0f, -far, far);
  Vec q = fma(splat(-5.96761703e-4f), s, splat(4.99119423e-3f));
  q = fma(q, s, splat(-2.67681349e-2f));
  q = fma(q, s, splat(1.12819925e-1f));
  q = fma(q, s, splat(-3.76125336e-1f));
  q = fma(q, s, splat(1.28379166e-1f));
  return select(t > 0.927734375f, far, fma(q, x, x));
}

Vec activate(Activation kind, Vec x) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_exact:
      return 0.5f * x * (1.0f + erf(x * 0.70710678f));
    case Activation::relu:
      return select(x < 0.0f, Vec{}, x);
    case Activation::silu:
      return x / (1.0f + exp(-x));
  }
  return x;
}

// Writes the outputs of one group, sums [H][16], of rows from `row` on.
template <class T>
void finish(const PackedLinear& op, int64_t row, int64_t H, int64_t group, const float* sums) {
  int64_t N = op.weight.outputs(), c = group * op.weight.group_outputs();
  int64_t count = std::min(op.weight.group_outputs(), N - c);
  const float* bias = op.bias ? op.bias.as<float>() + c : nullptr;
  for (int64_t h = 0; h < H; ++h, sums += kGroupRows) {
    int64_t at = (row + h) * N + c;
    const T* residual = op.residual ? op.residual.as<T>() + at : nullptr;
    for_lanes(count, [&](auto load_at, auto store_at) {
      Vec v = load_at(sums);
      if (bias) v += load_at(bias);
      v = activate(op.activation(), v);
      if (op.weight.gated) {
        Vec up = load_at(sums + kGroupRows / 2);
        v *= bias ? up + load_at(bias + N) : up;
      }
      if (residual) v += load_at(residual);
      store_at(op.y.as<T>() + at, v);
    });
  }
}

// The largest element of a row so far, by argmax's rules.
struct Leader {
  float value = -INFINITY;
  int32_t column = 0;

  void offer(float x, int32_t at) {
    if (x > value || (x != x && value == value)) value = x, column = at;
  }
};

// Offers the first `count` of a group's sums in order. Mostly none of them leads, which one comparison each finds.
void offer_group(Leader& leader, const float* sums, int64_t column, int64_t count) {
  IVec any{};
  for (int64_t l = 0; l < kGroupRows; l += kLanes) {
    Vec v = load(sums + l);
    any |= ~(v <= leader.value);
  }
  bool found = false;
  for (int i = 0; i < kLanes; ++i) found |= any[i] != 0;
  if (!found && column > 0) return;
  for (int64_t l = 0; l < count; ++l) leader.offer(sums[l], int32_t(column + l));
}

}  // namespace

void packed_linear(const PackedLinear& op) {
  if (op.y.numel() == 0) return;
  PackedInputs in = prepare_inputs(op.x, op.norm, op.weight.format());
  PackedTasks tasks(op.weight, in);
  dispatch_float(op.y.dtype, [&]<class T>() {
    parallel_for(tasks.count(), [&](int64_t task) {
      multiply_part(op.weight, in, tasks.part(task), [&](int64_t row, int64_t H, int64_t group, const float* sums) {
        finish<T>(op, row, H, group, sums);
      });
    });
  });
}

void packed_argmax(const PackedArgmax& op) {
  int64_t R = op.x.rows();
  if (R == 0) return;
  PackedInputs in = prepare_inputs(op.x, op.norm, op.weight.format());
  PackedTasks tasks(op.weight, in);
  std::vector<Leader> leaders(size_t(tasks.across * R));  // of each range of groups
  parallel_for(tasks.count(), [&](int64_t task) {
    Leader* own = leaders.data() + task / tasks.down * R;
    multiply_part(op.weight, in, tasks.part(task), [&](int64_t row, int64_t H, int64_t group, const float* sums) {
      int64_t column = group * kGroupRows, count = std::min(kGroupRows, op.weight.rows - column);
      for (int64_t h = 0; h < H; ++h) offer_group(own[row + h], sums + h * kGroupRows, column, count);
    });
  });
  for (int64_t r = 0; r < R; ++r) {
    Leader best;
    for (int64_t range = 0; range < tasks.across; ++range) {
      const Leader& leader = leaders[size_t(range * R + r)];
      best.offer(leader.value, leader.column);
    }
    op.out.as<int32_t>()[r] = best.column;
  }
}

}  // namespace ds::DS_ISA
