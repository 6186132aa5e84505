#include "block_matmul.h"

#include "../../runtime/pool.h"
#include "block_product.h"
#include "blocks.h"
#include "transpose.h"

namespace ds::DS_ISA {
namespace {

// The blocks of one thread; Kp is K rounded up to whole vectors.
struct MatmulBlocks {
  float *left, *right, *turned;  // [Kp, n] or [n, Kp], or a block of s
  float* sum;                    // [n, Kp] or [Kp, n], or a block of s

  MatmulBlocks(Pieces& pieces, int64_t n, int64_t Kp) {
    for (float** array : {&left, &right, &turned, &sum}) *array = pieces.take(n * std::max(n, Kp));
  }
};

// What the three products have in common: T in strips of one block, K whole.
template <class T>
class BlockMatmul {
 public:
  BlockMatmul(const Tensor& s, const BlockLayout& layout, int64_t K)
      : s_(s), layout_(layout), n_(layout.block), K_(K), Kp_(round_up(K, kLanes)), first_(head_blocks(layout)) {}

  // Calls body(blocks, bh, i) for every strip i of every head.
  template <class Body>
  void for_strips(int64_t heads, Body&& body) const {
    int64_t N = layout_.side();
    parallel_for(heads * N, [&](int64_t c) {
      auto w = in_scratch<MatmulBlocks>(n_, Kp_);
      body(w, c / N, c % N);
    });
  }

  // Calls body(other, block of s) along a row of the layout, or a column.
  template <class Body>
  void for_blocks(int64_t bh, int64_t i, bool by_columns, Body&& body) const {
    int64_t H = int64_t(first_.size()) - 1, h = bh % H, p = layout_.layout_of(h);
    const int32_t* range = by_columns ? layout_.column_range(p, i) : layout_.row_range(p, i);
    const int32_t* others = (by_columns ? layout_.rows : layout_.columns).as<int32_t>();
    for (int64_t at = range[0]; at < range[1]; ++at) {
      int64_t place = by_columns ? layout_.places.as<int32_t>()[at] : at;
      int64_t z = bh / H * first_.back() + first_[size_t(h)] + place - layout_.first_block(p);
      body(others[at], Rows<T>{s_.as<T>() + z * n_ * n_, n_});
    }
  }

  // Strip i of op(m), along its T, in `to` as a left operand [n, K] (or [K, n] where `upright`).
  Left left(const BlockMatrix& m, bool upright, int64_t bh, int64_t i, float* to) const {
    bool by_tokens = m.transposed == upright;  // whether tokens are the rows in memory
    pack(m, by_tokens, bh, i, to);
    int64_t token = by_tokens ? Kp_ : 1, k = by_tokens ? 1 : n_;
    return upright ? Left{to, k, token} : Left{to, token, k};
  }

  // Strip i of op(m) as a right operand: [K, n] where `upright`, else [n, Kp].
  const float* right(const BlockMatrix& m, bool upright, int64_t bh, int64_t i, const MatmulBlocks& w) const {
    bool by_tokens = m.transposed == upright;
    pack(m, by_tokens, bh, i, w.right);
    if (by_tokens != upright) return w.right;
    if (upright)
      transpose(w.right, n_, Kp_, Kp_, w.turned, 1.0f);
    else
      transpose(w.right, Kp_, n_, n_, w.turned, 1.0f);
    return w.turned;
  }

  // A strip of a result that has tokens as rows, or as columns.
  void write(const float* sum, const Tensor& y, bool by_tokens, int64_t bh, int64_t i) const {
    Rows<T> target = by_tokens ? rows_of(y, bh, i * n_, 0) : rows_of(y, bh, 0, i * n_);
    int64_t rows = by_tokens ? n_ : K_, columns = by_tokens ? K_ : n_, ld = by_tokens ? Kp_ : n_;
    for (int64_t r = 0; r < rows; ++r)
      for_lanes(columns, [&](auto load_at, auto store_at) { store_at(target.row(r), load_at(sum + r * ld)); });
  }

  int64_t n() const { return n_; }
  int64_t K() const { return K_; }
  int64_t Kp() const { return Kp_; }

 private:
  Rows<T> rows_of(const Tensor& t, int64_t bh, int64_t row, int64_t column) const {
    return {t.as<T>() + (bh * t.dim(2) + row) * t.dim(3) + column, t.dim(3)};
  }
  // [n, Kp] by tokens, else [K, n]; what is beyond K is zero.
  void pack(const BlockMatrix& m, bool by_tokens, int64_t bh, int64_t i, float* to) const {
    if (by_tokens)
      pack_rows(rows_of(m.t, bh, i * n_, 0), 0, n_, K_, to, Kp_);
    else
      pack_rows(rows_of(m.t, bh, 0, i * n_), 0, K_, n_, to, n_, 1.0f, Kp_);
  }

  const Tensor& s_;
  const BlockLayout& layout_;
  int64_t n_, K_, Kp_;
  std::vector<int64_t> first_;
};

template <class T>
void sdd(const BlockSdd& op) {
  BlockMatrix a{op.a, op.transpose_a}, b{op.b, op.transpose_b};
  BlockMatmul<T> product(op.s, op.layout, a.columns());
  int64_t n = product.n(), K = product.K();
  product.for_strips(op.a.dim(0) * op.a.dim(1), [&](MatmulBlocks& w, int64_t bh, int64_t i) {
    Left left = product.left(a, false, bh, i, w.left);
    product.for_blocks(bh, i, false, [&](int64_t column, const Rows<T>& s) {
      const float* right = product.right(b, true, bh, column, w);
      block_product<From::zero>(left, n, n, K, right, n, w.sum, n);
      for (int64_t r = 0; r < n; ++r)
        for_lanes(n, [&](auto load_at, auto store_at) { store_at(s.row(r), load_at(w.sum + r * n)); });
    });
  });
}

template <class T>
void dsd(const BlockDsd& op) {
  BlockMatrix b{op.b, op.transpose_b};
  BlockMatmul<T> product(op.s, op.layout, op.y.dim(3));
  int64_t n = product.n(), Kp = product.Kp();
  product.for_strips(op.y.dim(0) * op.y.dim(1), [&](MatmulBlocks& w, int64_t bh, int64_t i) {
    std::fill(w.sum, w.sum + n * Kp, 0.0f);
    product.for_blocks(bh, i, op.transpose_s, [&](int64_t other, const Rows<T>& s) {
      pack_rows(s, 0, n, n, w.left, n);
      const float* right = product.right(b, false, bh, other, w);
      Left left = op.transpose_s ? Left{w.left, 1, n} : Left{w.left, n, 1};
      block_product<From::itself>(left, n, Kp, n, right, Kp, w.sum, Kp);
    });
    product.write(w.sum, op.y, true, bh, i);
  });
}

template <class T>
void dds(const BlockDds& op) {
  BlockMatrix a{op.a, op.transpose_a};
  BlockMatmul<T> product(op.s, op.layout, op.y.dim(2));
  int64_t n = product.n(), K = product.K();
  product.for_strips(op.y.dim(0) * op.y.dim(1), [&](MatmulBlocks& w, int64_t bh, int64_t i) {
    std::fill(w.sum, w.sum + K * n, 0.0f);
    product.for_blocks(bh, i, !op.transpose_s, [&](int64_t other, const Rows<T>& s) {
      Left left = product.left(a, true, bh, other, w.left);
      pack_rows(s, 0, n, n, w.right, n);
      if (op.transpose_s) transpose(w.right, n, n, n, w.turned, 1.0f);
      block_product<From::itself>(left, K, n, n, op.transpose_s ? w.turned : w.right, n, w.sum, n);
    });
    product.write(w.sum, op.y, false, bh, i);
  });
}

}  // namespace

void block_sdd(const BlockSdd& op) {
  require_blocks(op.name, op.s, op.layout);
  dispatch_float(op.a.dtype, [&]<class T>() { sdd<T>(op); });
}
void block_dsd(const BlockDsd& op) {
  require_blocks(op.name, op.s, op.layout);
  dispatch_float(op.y.dtype, [&]<class T>() { dsd<T>(op); });
}
void block_dds(const BlockDds& op) {
  require_blocks(op.name, op.s, op.layout);
  dispatch_float(op.y.dtype, [&]<class T>() { dds<T>(op); });
}

}  // namespace ds::DS_ISA
