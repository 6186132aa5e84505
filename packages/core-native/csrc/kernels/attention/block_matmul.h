// Products of matrices of which one is block-sparse: the parts of sparse attention, each for itself. Per sequence and
// head:
//   block_sdd: s = op(a) op(b) on the blocks of the layout: scores from queries and keys (sparse = dense x dense)
//   block_dsd: y = op(s) op(b): outputs from probabilities and values
//   block_dds: y = op(a) op(s)
// op(x) is x, or its transpose where the flag says so. A block that is not in the layout is zero; of a transposed s the
// layout is the transposed one.
// shapes: s [B, Z, b, b], Z the blocks of all heads: head by head, each by rows of its layout (block_layout.h)
//   sdd: op(a) [B, H, T, K], op(b) [B, H, K, T];  dsd: op(b), y [B, H, T, K];  dds: op(a), y [B, H, K, T]
// dtypes: all of one of f32, bf16, f16 (f64 on ref); sums in f32, rounded once
// alias: none
// exact: cpu: each sum runs in the order of its index, in the same way for any number of threads
// limits: B, K >= 0; an empty sum is 0
// source: Gray et al. 2017, "GPU Kernels for Block-Sparse Weights"; DeepSpeed's sparse_self_attention/matmul.py
#pragma once
#include <vector>

#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"
#include "block_layout.h"

namespace ds {

// Where the blocks of each head begin in s: [H + 1].
inline std::vector<int64_t> head_blocks(const BlockLayout& layout) {
  std::vector<int64_t> first = {0};
  for (int64_t h = 0; h < layout.head_layout.numel(); ++h)
    first.push_back(first.back() + layout.count(layout.layout_of(h)));
  return first;
}

inline Error other_blocks(const char* op, int64_t expected, int64_t actual) {
  return Error("SHAPE", op, std::to_string(expected) + " blocks, those of the layout", std::to_string(actual),
               "pass the s of block_sdd");
}

// The blocks of all heads are known when the lists are read; then s must have as many.
inline void require_blocks(const char* op, const Tensor& s, const BlockLayout& layout) {
  layout.validate(op);
  int64_t Z = head_blocks(layout).back();
  if (s.dim(1) != Z) throw other_blocks(op, Z, s.dim(1));
}

// A dense operand or result, [B, H, rows, columns] as it lies in memory.
struct BlockMatrix {
  const Tensor& t;
  bool transposed;
  int64_t rows() const { return t.dim(transposed ? 3 : 2); }  // of op(t)
  int64_t columns() const { return t.dim(transposed ? 2 : 3); }
};

struct BlockSdd {
  static constexpr const char* name = "block_sdd";
  Tensor s, a, b;
  BlockLayout layout;
  bool transpose_a, transpose_b;

  void visit(auto& v) { v(s, a, b, layout, transpose_a, transpose_b); }
  void check() const {
    DS_REQUIRE(a.rank == 4 && b.rank == 4 && s.rank == 4 && is_float(a.dtype));
    DS_REQUIRE(b.dtype == a.dtype && s.dtype == a.dtype && a.dim(0) == b.dim(0) && a.dim(1) == b.dim(1));
    BlockMatrix left{a, transpose_a}, right{b, transpose_b};
    DS_REQUIRE(layout.fits(a.dim(1), left.rows()) && right.columns() == left.rows());
    DS_REQUIRE(left.columns() == right.rows());
    DS_REQUIRE(s.dim(0) == a.dim(0) && s.dim(2) == layout.block && s.dim(3) == layout.block);
    DS_REQUIRE(!overlap(s, a) && !overlap(s, b));
  }
  void ref() const;
  void cpu() const;
};

struct BlockDsd {
  static constexpr const char* name = "block_dsd";
  Tensor y, s, b;
  BlockLayout layout;
  bool transpose_s, transpose_b;

  void visit(auto& v) { v(y, s, b, layout, transpose_s, transpose_b); }
  void check() const {
    DS_REQUIRE(y.rank == 4 && b.rank == 4 && s.rank == 4 && is_float(y.dtype));
    DS_REQUIRE(b.dtype == y.dtype && s.dtype == y.dtype && y.dim(0) == b.dim(0) && y.dim(1) == b.dim(1));
    BlockMatrix right{b, transpose_b};
    DS_REQUIRE(layout.fits(y.dim(1), y.dim(2)) && right.rows() == y.dim(2) && right.columns() == y.dim(3));
    DS_REQUIRE(s.dim(0) == y.dim(0) && s.dim(2) == layout.block && s.dim(3) == layout.block);
    DS_REQUIRE(!overlap(y, s) && !overlap(y, b));
  }
  void ref() const;
  void cpu() const;
};

struct BlockDds {
  static constexpr const char* name = "block_dds";
  Tensor y, a, s;
  BlockLayout layout;
  bool transpose_a, transpose_s;

  void visit(auto& v) { v(y, a, s, layout, transpose_a, transpose_s); }
  void check() const {
    DS_REQUIRE(y.rank == 4 && a.rank == 4 && s.rank == 4 && is_float(y.dtype));
    DS_REQUIRE(a.dtype == y.dtype && s.dtype == y.dtype && y.dim(0) == a.dim(0) && y.dim(1) == a.dim(1));
    BlockMatrix left{a, transpose_a};
    DS_REQUIRE(layout.fits(y.dim(1), y.dim(3)) && left.columns() == y.dim(3) && left.rows() == y.dim(2));
    DS_REQUIRE(s.dim(0) == y.dim(0) && s.dim(2) == layout.block && s.dim(3) == layout.block);
    DS_REQUIRE(!overlap(y, s) && !overlap(y, a));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(BlockSdd, block_sdd)
DS_CPU_KERNEL(BlockDsd, block_dsd)
DS_CPU_KERNEL(BlockDds, block_dds)

}  // namespace ds
