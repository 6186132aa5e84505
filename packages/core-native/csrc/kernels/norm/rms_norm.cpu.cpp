#include "rms_norm.h"

#include <algorithm>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

// Rows are cut by bytes: small enough to balance, large enough to pay for a hand-over.
int64_t rows_per_chunk(int64_t C) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(C, 1)); }
constexpr int64_t kColumnsPerChunk = 64;  // 256 bytes of f32: whole cache lines of every row

template <class T, class W>
void forward_row(const RmsNorm& op, int64_t r, int64_t C) {
  T* y = op.y.as<T>() + r * C;
  const T* s = op.x.as<T>() + r * C;
  const W* weight = op.weight.as<W>();
  if (op.sum) {
    const T* residual = op.residual.as<T>() + r * C;
    T* sum = op.sum.as<T>() + r * C;
    for_lanes(C, [&](auto load_at, auto store_at) { store_at(sum, load_at(s) + load_at(residual)); });
    s = sum;
  }
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
  G* target = op.dweight.as<G>() + begin;
  for_lanes(n, [&](auto load_at, auto store_at) {
    Vec v = load_at(dweight);
    store_at(target, op.accumulate ? load_at(target) + v : v);
  });
}

}  // namespace

void rms_norm(const RmsNorm& op) {
  int64_t R = op.x.rows(), C = op.x.dim(-1);
  dispatch_rows(op.x.dtype, op.weight.dtype, [&]<class T, class W>() {
    parallel_ranges(R, rows_per_chunk(C), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) forward_row<T, W>(op, r, C);
    });
  });
}

void rms_norm_backward(const RmsNormBackward& op) {
  int64_t R = op.s.rows(), C = op.s.dim(-1);
  // The weight's gradient first: dx may overwrite dy.
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
