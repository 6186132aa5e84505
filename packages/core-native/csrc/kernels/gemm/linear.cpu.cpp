#include <vector>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"
#include "linear.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kRows = 4;

std::vector<float> widen(const Tensor& t) {
  std::vector<float> out(size_t(t.numel()));
  dispatch_float(t.dtype, [&]<class T>() {
    const T* p = t.as<T>();
    for_lanes(t.numel(), [&](auto load_at, auto store_at) { store_at(out.data(), load_at(p)); });
  });
  return out;
}

}  // namespace

void linear(const Linear& op) {
  int64_t R = op.x.rows(), K = op.x.dim(-1), N = op.weight.dim(0);
  std::vector<float> x = widen(op.x), w = widen(op.weight);
  parallel_ranges(R, kRows, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t n = 0; n < N; ++n) {
        Vec s{};
        for_lanes(K, [&](auto load_at, auto) { s += load_at(x.data() + r * K) * load_at(w.data() + n * K); });
        float v = sum(s);
        dispatch_float(op.weight.dtype, [&]<class W>() {
          if (op.bias) v += load_tail(op.bias.as<W>() + n, 1)[0];
        });
        dispatch_float(op.x.dtype, [&]<class T>() {
          if (op.pre) store_tail(op.pre.as<T>() + r * N + n, splat(v), 1);
          if (op.gelu) v = 0.5f * v * (1 + std::tanh(0.79788456f * v * (1 + 0.044715f * v * v)));
          if (op.residual) v += load_tail(op.residual.as<T>() + r * N + n, 1)[0];
          store_tail(op.y.as<T>() + r * N + n, splat(v), 1);
        });
      }
  });
}

void linear_backward_input(const LinearBackwardInput& op) {
  int64_t R = op.dy.rows(), N = op.weight.dim(0), K = op.weight.dim(1);
  std::vector<float> dy = widen(op.dy), w = widen(op.weight);
  parallel_ranges(R, kRows, [&](int64_t begin, int64_t end) {
    std::vector<float> row;
    for (int64_t r = begin; r < end; ++r) {
      row.assign(size_t(K), 0);
      for (int64_t n = 0; n < N; ++n) {
        float g = dy[r * N + n];
        for_lanes(K, [&](auto load_at, auto store_at) {
          store_at(row.data(), load_at(row.data()) + g * load_at(w.data() + n * K));
        });
      }
      dispatch_float(op.dx.dtype, [&]<class T>() {
        T* p = op.dx.as<T>() + r * K;
        for_lanes(K, [&](auto load_at, auto store_at) {
          Vec v = load_at(row.data());
          store_at(p, op.accumulate ? load_at(p) + v : v);
        });
      });
    }
  });
}

void linear_backward_weight(const LinearBackwardWeight& op) {
  int64_t R = op.dy.rows(), N = op.dweight.dim(0), K = op.dweight.dim(1);
  std::vector<float> dy = widen(op.dy), x = widen(op.x);
  parallel_ranges(N, kRows, [&](int64_t begin, int64_t end) {
    std::vector<float> row;
    for (int64_t n = begin; n < end; ++n) {
      row.assign(size_t(K), 0);
      float b = 0;
      for (int64_t r = 0; r < R; ++r) {
        float g = dy[r * N + n];
        b += g;
        for_lanes(K, [&](auto load_at, auto store_at) {
          store_at(row.data(), load_at(row.data()) + g * load_at(x.data() + r * K));
        });
      }
      dispatch_float(op.dweight.dtype, [&]<class G>() {
        G* p = op.dweight.as<G>() + n * K;
        for_lanes(K, [&](auto load_at, auto store_at) {
          Vec v = load_at(row.data());
          store_at(p, op.accumulate ? load_at(p) + v : v);
        });
        if (op.dbias) {
          G* q = op.dbias.as<G>() + n;
          store_tail(q, splat(op.accumulate ? load_tail(q, 1)[0] + b : b), 1);
        }
      });
    }
  });
}

}  // namespace ds::DS_ISA
