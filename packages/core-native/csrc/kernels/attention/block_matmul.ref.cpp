#include "block_matmul.h"

#include "../common/ref.h"

namespace ds {
namespace {

// Element (i, j) of op(m) of sequence b, head h.
double element(const BlockMatrix& m, int64_t b, int64_t h, int64_t i, int64_t j) {
  int64_t H = m.t.dim(1), R = m.t.dim(2), C = m.t.dim(3);
  return get(m.t, ((b * H + h) * R + (m.transposed ? j : i)) * C + (m.transposed ? i : j));
}

// The block-sparse matrix op(s) of every head, written out with its zeros.
class Expanded {
 public:
  Expanded(const Tensor& s, const BlockLayout& layout, bool transposed)
      : s_(s), layout_(layout), transposed_(transposed), first_(head_blocks(layout)) {}

  double operator()(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (transposed_) std::swap(i, j);
    int64_t n = layout_.block, z = block(h, i / n, j / n);
    return z < 0 ? 0 : get(s_, ((b * first_.back() + z) * n + i % n) * n + j % n);
  }
  // Which of all heads' blocks (r, c) of head h is, or -1.
  int64_t block(int64_t h, int64_t r, int64_t c) const {
    int64_t p = layout_.layout_of(h);
    const int32_t* range = layout_.row_range(p, r);
    for (int64_t at = range[0]; at < range[1]; ++at)
      if (layout_.columns.as<int32_t>()[at] == c) return first_[size_t(h)] + at - layout_.first_block(p);
    return -1;
  }

 private:
  const Tensor& s_;
  const BlockLayout& layout_;
  bool transposed_;
  std::vector<int64_t> first_;
};

}  // namespace

void BlockSdd::ref() const {
  require_blocks(name, s, layout);
  Expanded blocks(s, layout, false);
  BlockMatrix left{a, transpose_a}, right{b, transpose_b};
  int64_t T = left.rows(), K = left.columns(), n = layout.block;
  for (int64_t bh = 0; bh < a.dim(0) * a.dim(1); ++bh)
    for (int64_t i = 0; i < T; ++i)
      for (int64_t j = 0; j < T; ++j) {
        int64_t q = bh / a.dim(1), h = bh % a.dim(1), z = blocks.block(h, i / n, j / n);
        if (z < 0) continue;
        double sum = 0;
        for (int64_t k = 0; k < K; ++k) sum += element(left, q, h, i, k) * element(right, q, h, k, j);
        put(s, ((q * s.dim(1) + z) * n + i % n) * n + j % n, sum);
      }
}

void BlockDsd::ref() const {
  require_blocks(name, s, layout);
  Expanded left(s, layout, transpose_s);
  BlockMatrix right{b, transpose_b};
  int64_t H = y.dim(1), T = y.dim(2), K = y.dim(3);
  for (int64_t bh = 0; bh < y.dim(0) * H; ++bh)
    for (int64_t i = 0; i < T; ++i)
      for (int64_t k = 0; k < K; ++k) {
        double sum = 0;
        for (int64_t j = 0; j < T; ++j) sum += left(bh / H, bh % H, i, j) * element(right, bh / H, bh % H, j, k);
        put(y, (bh * T + i) * K + k, sum);
      }
}

void BlockDds::ref() const {
  require_blocks(name, s, layout);
  Expanded right(s, layout, transpose_s);
  BlockMatrix left{a, transpose_a};
  int64_t H = y.dim(1), K = y.dim(2), T = y.dim(3);
  for (int64_t bh = 0; bh < y.dim(0) * H; ++bh)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t j = 0; j < T; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < T; ++i) sum += element(left, bh / H, bh % H, k, i) * right(bh / H, bh % H, i, j);
        put(y, (bh * K + k) * T + j, sum);
      }
}

}  // namespace ds
