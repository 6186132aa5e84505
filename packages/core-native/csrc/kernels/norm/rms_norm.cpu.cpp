#include "rms_norm.h"

#include "rows.h"

namespace ds::DS_ISA {
namespace {

template <class T, class W>
void forward_row(const RmsNorm& op, int64_t r, int64_t C) {
  T* y = op.y.as<T>() + r * C;
  const T* s = summed_row<T>(op, r, C);
  const W* weight = op.weight.as<W>();
  Vec squares{};
  for_lanes(C, [&](auto load_at, auto) {
    Vec v = load_at(s);  // zero in the tail's padding
    squares += v * v;
  });
  float rstd = 1.0f / std::sqrt(sum(squares) / float(C) + float(op.eps));
  for_lanes(C, [&](auto load_at, auto store_at) { store_at(y, load_at(s) * rstd * load_at(weight)); });
  op.rstd.as<float>()[r] = rstd;
}

template <class T, class W>
void backward_row(const RmsNormBackward& op, int64_t r, int64_t C) {
  T* dx = op.dx.as<T>() + r * C;
  const T *dy = op.dy.as<T>() + r * C, *s = op.s.as<T>() + r * C;
  const W* weight = op.weight.as<W>();
  float rstd = op.rstd.as<float>()[r];
  Vec total_gn{};
  for_lanes(C, [&](auto load_at, auto) { total_gn += load_at(dy) * load_at(weight) * (load_at(s) * rstd); });
  float mean_gn = sum(total_gn) / float(C);
  const T* dsum = op.dsum ? op.dsum.as<T>() + r * C : nullptr;
  for_lanes(C, [&](auto load_at, auto store_at) {
    Vec d = rstd * (load_at(dy) * load_at(weight) - load_at(s) * rstd * mean_gn);
    store_at(dx, dsum ? d + load_at(dsum) : d);
  });
}

template <class T, class G>
void weight_columns(const RmsNormBackward& op, int64_t begin, int64_t end, int64_t R, int64_t C) {
  float dweight[kColumnsPerChunk] = {};
  int64_t n = end - begin;
  for (int64_t r = 0; r < R; ++r) {
    const T *dy = op.dy.as<T>() + r * C + begin, *s = op.s.as<T>() + r * C + begin;
    float rstd = op.rstd.as<float>()[r];
    for_lanes(n, [&](auto load_at, auto store_at) {
      store_at(dweight, load_at(dweight) + load_at(dy) * (load_at(s) * rstd));
    });
  }
  write_columns<G>(op.dweight, dweight, begin, n, op.accumulate);
}

}  // namespace

void rms_norm(const RmsNorm& op) {
  for_rows(op.x, op.weight.dtype, [&]<class T, class W>(int64_t r, int64_t C) { forward_row<T, W>(op, r, C); });
}

void rms_norm_backward(const RmsNormBackward& op) {
  // The weight's gradient first: dx may overwrite dy.
  for_columns(op.s, op.dweight.dtype, [&]<class T, class G>(int64_t begin, int64_t end, int64_t R, int64_t C) {
    weight_columns<T, G>(op, begin, end, R, C);
  });
  for_rows(op.s, op.weight.dtype, [&]<class T, class W>(int64_t r, int64_t C) { backward_row<T, W>(op, r, C); });
}

}  // namespace ds::DS_ISA
