// block_softmax: p = softmax of every row over the blocks of a layout (the sparse s of block_sdd), per sequence and
// head
//   x[i, j] = scale * s[i, j] + added[i, j]; key j is visible to query i when mask[b, j] != 0 and (not causal or j <=
//   i) p[i, j] = exp(x[i, j]) / sum over visible j of exp(x[i, j]), 0 where not visible
// shapes: p, s [B, Z, b, b] (see block_matmul.h), added [H or 1, T, T], mask [B, T]
// dtypes: p, s one of f32, bf16, f16 (f64 on ref), arithmetic in f32; added f32 (f64 on ref); mask u8
// alias: p may be s
// rows without a visible key: all 0
// exact: a row's bits depend on its own scores and the layout alone
// source: DeepSpeed's sparse_self_attention/softmax.py, its masks in mode "mul"; `added` is its rpe, or a mask in mode
// "add"
//
// block_softmax_backward: ds = scale * p * (dp - sum over j of p * dp). ds may be dp.
#pragma once
#include "block_matmul.h"

namespace ds {

struct BlockSoftmax {
  static constexpr const char* name = "block_softmax";
  Tensor p, s;
  BlockLayout layout;
  Optional added, mask;
  double scale;
  bool causal;

  void visit(auto& v) { v(p, s, layout, added, mask, scale, causal); }
  int64_t heads() const { return layout.head_layout.numel(); }
  int64_t tokens() const { return layout.side() * layout.block; }
  void check() const {
    DS_REQUIRE(layout.row_start.rank == 2 && layout.fits(heads(), tokens()));
    DS_REQUIRE(s.rank == 4 && p.rank == 4 && is_float(s.dtype) && p.dtype == s.dtype && p.numel() == s.numel());
    DS_REQUIRE(s.dim(2) == layout.block && s.dim(3) == layout.block && p.dim(1) == s.dim(1));
    int64_t pairs = tokens() * tokens();
    DS_REQUIRE(!added || added.dtype == (s.dtype == DType::f64 ? DType::f64 : DType::f32));
    DS_REQUIRE(!added || added.numel() == pairs || added.numel() == heads() * pairs);
    DS_REQUIRE(!mask || (mask.numel() == s.dim(0) * tokens() && mask.dtype == DType::u8));
    DS_REQUIRE_SAME_OR_APART(p, s);
  }
  void ref() const;
  void cpu() const;
};

struct BlockSoftmaxBackward {
  static constexpr const char* name = "block_softmax_backward";
  Tensor ds, dp, p;
  BlockLayout layout;
  double scale;

  void visit(auto& v) { v(ds, dp, p, layout, scale); }
  int64_t heads() const { return layout.head_layout.numel(); }
  void check() const {
    DS_REQUIRE(layout.row_start.rank == 2 && layout.fits(heads(), layout.side() * layout.block));
    DS_REQUIRE(p.rank == 4 && is_float(p.dtype) && ds.dtype == p.dtype && dp.dtype == p.dtype);
    DS_REQUIRE(ds.numel() == p.numel() && dp.numel() == p.numel());
    DS_REQUIRE(p.dim(2) == layout.block && p.dim(3) == layout.block);
    DS_REQUIRE_SAME_OR_APART(ds, dp);
    DS_REQUIRE(!overlap(ds, p));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(BlockSoftmax, block_softmax)
DS_CPU_KERNEL(BlockSoftmaxBackward, block_softmax_backward)

// One row of blocks of one head: where its rows of scores lie in s.
struct BlockRow {
  const BlockLayout& layout;
  int64_t b, h, r;         // sequence, head, row of blocks
  int64_t first;           // number of its first block in s
  const int32_t* columns;  // of its blocks
  int64_t count;

  BlockRow(const BlockLayout& layout, const std::vector<int64_t>& blocks, int64_t bh, int64_t r)
      : layout(layout), b(bh / (int64_t(blocks.size()) - 1)), h(bh % (int64_t(blocks.size()) - 1)), r(r) {
    int64_t p = layout.layout_of(h);
    const int32_t* range = layout.row_range(p, r);
    first = b * blocks.back() + blocks[size_t(h)] + range[0] - layout.first_block(p);
    columns = layout.columns.as<int32_t>() + range[0];
    count = range[1] - range[0];
  }
  // Of row i of the blocks, the place in s of its part in block k.
  int64_t at(int64_t k, int64_t i) const { return ((first + k) * layout.block + i) * layout.block; }
  int64_t query(int64_t i) const { return r * layout.block + i; }
  int64_t key(int64_t k) const { return columns[k] * layout.block; }
};

}  // namespace ds
