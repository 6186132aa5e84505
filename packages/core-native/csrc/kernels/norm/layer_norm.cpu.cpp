#include <algorithm>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"
#include "layer_norm.h"

namespace ds::DS_ISA {
namespace {

// Rows are cut by bytes: small enough to balance, large enough to pay for a hand-over.
int64_t rows_per_chunk(int64_t C) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(C, 1)); }
constexpr int64_t kColumnsPerChunk = 64;  // 256 bytes of f32: whole cache lines of every row

template <class T, class W>
void forward_row(const LayerNorm& op, int64_t r, int64_t C) {
  T* y = op.y.as<T>() + r * C;
  const T* s = op.x.as<T>() + r * C;
  const W *weight = op.weight.as<W>(), *bias = op.bias.as<W>();
  if (op.sum) {
    const T* residual = op.residual.as<T>() + r * C;
    T* sum = op.sum.as<T>() + r * C;
    for_lanes(C, [&](auto load_at, auto store_at) { store_at(sum, load_at(s) + load_at(residual)); });
    s = sum;
  }
  Vec total{};
  for_lanes(C, [&](auto load_at, auto) { total += load_at(s); });
  float mean = sum(total) / float(C);
  // Two passes, because E[s^2] - mean^2 cancels when the mean is large. The tail's padding must not count.
  Vec squares{};
  int64_t c = 0;
  for (; c + kLanes <= C; c += kLanes) {
    Vec d = load(s + c) - mean;
    squares += d * d;
  }
  float rest = 0;
  for (; c < C; ++c) {
    float d = load_tail(s + c, 1)[0] - mean;
    rest += d * d;
  }
  float rstd = 1.0f / std::sqrt((sum(squares) + rest) / float(C) + float(op.eps));
  for_lanes(C, [&](auto load_at, auto store_at) {
    store_at(y, (load_at(s) - mean) * rstd * load_at(weight) + load_at(bias));
  });
  op.mean.as<float>()[r] = mean;
  op.rstd.as<float>()[r] = rstd;
}

template <class T, class W>
void backward_row(const LayerNormBackward& op, int64_t r, int64_t C) {
  T* dx = op.dx.as<T>() + r * C;
  const T *dy = op.dy.as<T>() + r * C, *s = op.s.as<T>() + r * C;
  const W* weight = op.weight.as<W>();
  float mean = op.mean.as<float>()[r], rstd = op.rstd.as<float>()[r];
  Vec total_g{}, total_gn{};
  for_lanes(C, [&](auto load_at, auto) {
    Vec g = load_at(dy) * load_at(weight);  // zero in the tail's padding
    total_g += g;
    total_gn += g * ((load_at(s) - mean) * rstd);
  });
  float mean_g = sum(total_g) / float(C), mean_gn = sum(total_gn) / float(C);
  const T* dsum = op.dsum ? op.dsum.as<T>() + r * C : nullptr;
  for_lanes(C, [&](auto load_at, auto store_at) {
    Vec n = (load_at(s) - mean) * rstd;
    Vec d = rstd * (load_at(dy) * load_at(weight) - mean_g - n * mean_gn);
    store_at(dx, dsum ? d + load_at(dsum) : d);
  });
}

template <class T, class G>
void weight_columns(const LayerNormBackward& op, int64_t begin, int64_t end, int64_t R, int64_t C) {
  float dweight[kColumnsPerChunk] = {}, dbias[kColumnsPerChunk] = {};
  int64_t n = end - begin;
  for (int64_t r = 0; r < R; ++r) {
    const T *dy = op.dy.as<T>() + r * C + begin, *s = op.s.as<T>() + r * C + begin;
    float mean = op.mean.as<float>()[r], rstd = op.rstd.as<float>()[r];
    for_lanes(n, [&](auto load_at, auto store_at) {
      Vec g = load_at(dy);
      store_at(dweight, load_at(dweight) + g * ((load_at(s) - mean) * rstd));
      store_at(dbias, load_at(dbias) + g);
    });
  }
  auto write = [&](const Tensor& target, const float* values) {
    G* p = target.as<G>() + begin;
    for_lanes(n, [&](auto load_at, auto store_at) {
      Vec v = load_at(values);
      store_at(p, op.accumulate ? load_at(p) + v : v);
    });
  };
  write(op.dweight, dweight);
  write(op.dbias, dbias);
}

}  // namespace

void layer_norm(const LayerNorm& op) {
  int64_t R = op.x.rows(), C = op.x.dim(-1);
  dispatch_rows(op.x.dtype, op.weight.dtype, [&]<class T, class W>() {
    parallel_ranges(R, rows_per_chunk(C), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) forward_row<T, W>(op, r, C);
    });
  });
}

void layer_norm_backward(const LayerNormBackward& op) {
  int64_t R = op.s.rows(), C = op.s.dim(-1);
  // The weights' gradients first: dx may overwrite dy.
  dispatch_float(op.s.dtype, [&]<class T>() {
    dispatch_float(op.dweight.dtype, [&]<class G>() {
      parallel_ranges(C, kColumnsPerChunk,
                      [&](int64_t begin, int64_t end) { weight_columns<T, G>(op, begin, end, R, C); });
    });
  });
  dispatch_rows(op.s.dtype, op.weight.dtype, [&]<class T, class W>() {
    parallel_ranges(R, rows_per_chunk(C), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) backward_row<T, W>(op, r, C);
    });
  });
}

}  // namespace ds::DS_ISA
