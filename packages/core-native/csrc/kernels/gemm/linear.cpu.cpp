#include <algorithm>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"
#include "gemm.h"
#include "library_gemm.h"
#include "linear.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kColumnsPerChunk = 64;  // 256 bytes of f32: whole cache lines of every row

Matrix matrix(const Tensor& t, int64_t stride, bool transposed = false) {
  return {t.data, t.dtype, stride, transposed};
}

// Runs a product by the library's kernels where they are the faster ones, else by ours.
void multiply(const Gemm& g) {
  const Epilogue& e = g.epilogue;
  bool f32 = g.a.dtype == DType::f32 && g.b.dtype == DType::f32 && g.c.dtype == DType::f32;
  bool bare = !e.bias && !e.pre && !e.gelu && !e.residual;
  if (!f32 || !bare || !prefers_library()) return gemm(g);
  library_gemm({g.M, g.N, g.K, static_cast<const float*>(g.a.data), g.a.stride, g.a.transposed,
                static_cast<const float*>(g.b.data), g.b.stride, g.b.transposed, static_cast<float*>(g.c.data),
                g.c.stride, g.accumulate});
}

// dbias = column sums of dy, rows in order.
template <class T, class G>
void sum_columns(const LinearBackwardWeight& op, int64_t begin, int64_t end) {
  float total[kColumnsPerChunk] = {};
  int64_t R = op.dy.rows(), N = op.dweight.dim(0);
  for (int64_t r = 0; r < R; ++r) {
    const T* dy = op.dy.as<T>() + r * N + begin;
    for_lanes(end - begin, [&](auto load_at, auto store_at) { store_at(total, load_at(total) + load_at(dy)); });
  }
  G* dbias = op.dbias.as<G>() + begin;
  for_lanes(end - begin, [&](auto load_at, auto store_at) {
    Vec v = load_at(total);
    store_at(dbias, op.accumulate ? load_at(dbias) + v : v);
  });
}

}  // namespace

void linear(const Linear& op) {
  int64_t R = op.x.rows(), K = op.x.dim(-1), N = op.weight.dim(0);
  Gemm g{R, N, K, matrix(op.x, K), matrix(op.weight, K, true), matrix(op.y, N)};
  if (op.bias) g.epilogue.bias = op.bias.data;
  g.epilogue.bias_dtype = op.weight.dtype;
  if (op.pre) g.epilogue.pre = op.pre.data;
  g.epilogue.gelu = op.gelu;
  if (op.residual) g.epilogue.residual = op.residual.data;
  multiply(g);
}

void linear_backward_input(const LinearBackwardInput& op) {
  int64_t R = op.dy.rows(), N = op.weight.dim(0), K = op.weight.dim(1);
  multiply({R, K, N, matrix(op.dy, N), matrix(op.weight, K), matrix(op.dx, K), op.accumulate});
}

void linear_backward_weight(const LinearBackwardWeight& op) {
  int64_t R = op.dy.rows(), N = op.dweight.dim(0), K = op.dweight.dim(1);
  multiply({N, K, R, matrix(op.dy, N, true), matrix(op.x, K), matrix(op.dweight, K), op.accumulate});
  if (!op.dbias) return;
  dispatch_float(op.dy.dtype, [&]<class T>() {
    dispatch_float(op.dweight.dtype, [&]<class G>() {
      parallel_ranges(N, kColumnsPerChunk, [&](int64_t begin, int64_t end) { sum_columns<T, G>(op, begin, end); });
    });
  });
}

}  // namespace ds::DS_ISA
