// How CPU kernels share the rows of a normalisation, and the columns of the gradients of its weights.
#pragma once
#include <algorithm>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"

namespace ds::DS_ISA {

// Rows are cut by bytes: small enough to balance, large enough to pay for a hand-over.
inline int64_t rows_per_chunk(int64_t C) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(C, 1)); }
constexpr int64_t kColumnsPerChunk = 64;  // 256 bytes of f32: whole cache lines of every row

// Calls row<T, W>(r, C) for every row of x, whose weights are of dtype `weights`.
template <class Row>
void for_rows(const Tensor& x, DType weights, Row&& row) {
  int64_t C = x.dim(-1);
  dispatch_rows(x.dtype, weights, [&]<class T, class W>() {
    parallel_ranges(x.rows(), rows_per_chunk(C), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) row.template operator()<T, W>(r, C);
    });
  });
}

// Calls columns<T, G>(begin, end, R, C) for ranges of columns of s, whose sums go to tensors of dtype `gradients`.
template <class Columns>
void for_columns(const Tensor& s, DType gradients, Columns&& columns) {
  int64_t R = s.rows(), C = s.dim(-1);
  dispatch_float(s.dtype, [&]<class T>() {
    dispatch_float(gradients, [&]<class G>() {
      parallel_ranges(C, kColumnsPerChunk,
                      [&](int64_t begin, int64_t end) { columns.template operator()<T, G>(begin, end, R, C); });
    });
  });
}

// Row r of what is normalised: that of x, or of x + residual once it is written to `sum`.
template <class T, class Op>
const T* summed_row(const Op& op, int64_t r, int64_t C) {
  const T* x = op.x.template as<T>() + r * C;
  if (!op.sum) return x;
  const T* residual = op.residual.template as<T>() + r * C;
  T* sum = op.sum.template as<T>() + r * C;
  for_lanes(C, [&](auto load_at, auto store_at) { store_at(sum, load_at(x) + load_at(residual)); });
  return sum;
}

// Writes n sums to `target` from column `begin`, or adds them to what it holds.
template <class G>
void write_columns(const Tensor& target, const float* sums, int64_t begin, int64_t n, bool accumulate) {
  G* p = target.as<G>() + begin;
  for_lanes(n, [&](auto load_at, auto store_at) {
    Vec v = load_at(sums);
    store_at(p, accumulate ? load_at(p) + v : v);
  });
}

}  // namespace ds::DS_ISA
