#include <vector>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"
#include "library_gemm.h"
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
  if (has_library_gemm()) {
    std::vector<float> xs, ws, ys;
    auto f32 = [](const Tensor& t, std::vector<float>& buffer) {
      if (t.dtype == DType::f32) return t.as<float>();
      buffer = widen(t);
      return buffer.data();
    };
    const float *x = f32(op.x, xs), *w = f32(op.weight, ws);
    float* y = op.y.as<float>();
    if (op.y.dtype != DType::f32 || (op.residual && op.residual.data == op.y.data)) {
      ys.resize(size_t(R * N));
      y = ys.data();
    }
    library_gemm({R, N, K, x, K, false, w, K, true, y, N, false});
    if (!op.bias && !op.gelu && !op.pre && !op.residual && y == op.y.as<float>()) return;
    dispatch_float(op.weight.dtype, [&]<class W>() {
      dispatch_float(op.x.dtype, [&]<class T>() {
        parallel_ranges(R, 16, [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r)
            for_lanes(N, [&](auto load_at, auto store_at) {
              Vec v = load_at(y + r * N);
              if (op.bias) v += load_at(op.bias.as<W>());
              if (op.pre) store_at(op.pre.as<T>() + r * N, v);
              if (op.gelu) v = 0.5f * v * (1.0f + tanh(0.79788456f * v * (1.0f + 0.044715f * v * v)));
              if (op.residual) v += load_at(op.residual.as<T>() + r * N);
              store_at(op.y.as<T>() + r * N, v);
            });
        });
      });
    });
    return;
  }
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
  if (has_library_gemm() && op.dx.dtype == DType::f32) {
    std::vector<float> ws;
    const float* w = op.weight.as<float>();
    if (op.weight.dtype != DType::f32) w = (ws = widen(op.weight)).data();
    return library_gemm({R, K, N, op.dy.as<float>(), N, false, w, K, false, op.dx.as<float>(), K, op.accumulate});
  }
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
  if (has_library_gemm() && op.dy.dtype == DType::f32) {
    library_gemm(
        {N, K, R, op.dy.as<float>(), N, true, op.x.as<float>(), K, false, op.dweight.as<float>(), K, op.accumulate});
    if (!op.dbias) return;
    parallel_ranges(N, 64, [&](int64_t begin, int64_t end) {
      float total[64] = {};
      for (int64_t r = 0; r < R; ++r)
        for_lanes(end - begin, [&](auto load_at, auto store_at) {
          store_at(total, load_at(total) + load_at(op.dy.as<float>() + r * N + begin));
        });
      for (int64_t n = begin; n < end; ++n) {
        float& d = op.dbias.as<float>()[n];
        d = op.accumulate ? d + total[n - begin] : total[n - begin];
      }
    });
    return;
  }
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
