#include "layer_norm.h"

#include "rows.h"

namespace ds::DS_ISA {
namespace {

template <class T, class W>
void forward_row(const LayerNorm& op, int64_t r, int64_t C) {
  T* y = op.y.as<T>() + r * C;
  const T* s = summed_row<T>(op, r, C);
  const W *weight = op.weight.as<W>(), *bias = op.bias.as<W>();
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
  write_columns<G>(op.dweight, dweight, begin, n, op.accumulate);
  write_columns<G>(op.dbias, dbias, begin, n, op.accumulate);
}

}  // namespace

void layer_norm(const LayerNorm& op) {
  for_rows(op.x, op.weight.dtype, [&]<class T, class W>(int64_t r, int64_t C) { forward_row<T, W>(op, r, C); });
}

void layer_norm_backward(const LayerNormBackward& op) {
  // The weights' gradients first: dx may overwrite dy.
  for_columns(op.s, op.dweight.dtype, [&]<class T, class G>(int64_t begin, int64_t end, int64_t R, int64_t C) {
    weight_columns<T, G>(op, begin, end, R, C);
  });
  for_rows(op.s, op.weight.dtype, [&]<class T, class W>(int64_t r, int64_t C) { backward_row<T, W>(op, r, C); });
}

}  // namespace ds::DS_ISA
