// sparse_attention: attention (see attention.h) of which only some blocks of scores exist: a layout says for each head
// which blocks of keys a block of queries sees. All other probabilities are 0 and cost neither time nor memory.
//   out = softmax(scale * q k^T + alibi + added) v over the keys j that query i sees: block (i / b, j / b) is in the
//   layout of the head, mask[b, j] != 0, and j <= i where `causal`: by tokens, whatever the blocks hold
//   alibi, lse, dropout and the numbering of its random numbers: as in attention
//   added [H or 1, T, T]: a bias behind the scaling, such as relative positions or an attention mask; has no gradient
// shapes: qkv [B, T, H * 3 * D], out [B, T, H * D], lse [B, H, T], slopes [H], mask [B, T]; layout: block_layout.h
// dtypes: qkv, out one of f32, bf16, f16 (f64 on ref), arithmetic in f32; lse, slopes, added f32 (f64 on ref); mask u8
// alias: none
// saves: qkv, out, lse (and slopes, added, mask)
// rows without a visible key: out 0, lse -inf and gradients 0
// exact: a query's bits depend on its own visible keys and the layout alone: not on threads or batch neighbours
// precision: with slopes and without `added`, a probability under 1e-30 of its row's largest counts as 0
// limits: block 16, 32, 64 or 128 and T a multiple of it; as attention otherwise
// source: Child et al. 2019, "Sparse Transformers"; Dao et al. 2022, "FlashAttention", alg. 5 (block-sparse), 4
//
// sparse_attention_backward: as attention_backward, over the same blocks. dq is summed by rows of the layout, dk and dv
// by columns, each in the order of the index, so that nothing is added by two threads.
#pragma once
#include "attention.h"
#include "block_layout.h"

namespace ds {

struct SparseAttention {
  static constexpr const char* name = "sparse_attention";
  Tensor out, lse, qkv;
  BlockLayout layout;
  Optional slopes, added, mask;
  int64_t heads;
  double scale;
  bool causal;
  double dropout;
  int64_t seed, offset;

  void visit(auto& v) { v(out, lse, qkv, layout, slopes, added, mask, heads, scale, causal, dropout, seed, offset); }
  AttentionShape shape() const { return {qkv.dim(0), qkv.dim(1), heads, qkv.dim(2) / (3 * heads)}; }
  void check() const {
    DS_REQUIRE(qkv.rank == 3 && heads >= 1 && qkv.dim(2) >= 3 * heads && qkv.dim(2) % (3 * heads) == 0);
    auto [B, T, H, D] = shape();
    DS_REQUIRE(layout.fits(H, T));
    DS_REQUIRE(is_float(qkv.dtype) && out.dtype == qkv.dtype && out.numel() == B * T * H * D);
    DS_REQUIRE(lse.numel() == B * H * T && (lse.dtype == DType::f32 || lse.dtype == DType::f64));
    DS_REQUIRE(!slopes || (slopes.numel() == H && slopes.dtype == lse.dtype));
    DS_REQUIRE(!added || ((added.numel() == H * T * T || added.numel() == T * T) && added.dtype == lse.dtype));
    DS_REQUIRE(!mask || (mask.numel() == B * T && mask.dtype == DType::u8));
    DS_REQUIRE(T < (1 << 24) && dropout >= 0 && dropout < 1 && seed >= 0 && offset >= 0);
    DS_REQUIRE(!overlap(out, qkv) && !overlap(lse, qkv) && !overlap(lse, out));
  }
  void ref() const;
  void cpu() const;
};

struct SparseAttentionBackward {
  static constexpr const char* name = "sparse_attention_backward";
  Tensor dqkv, dout, qkv, out, lse;
  BlockLayout layout;
  Optional slopes, added, mask;
  int64_t heads;
  double scale;
  bool causal;
  double dropout;
  int64_t seed, offset;

  void visit(auto& v) {
    v(dqkv, dout, qkv, out, lse, layout, slopes, added, mask, heads, scale, causal, dropout, seed, offset);
  }
  AttentionShape shape() const { return {qkv.dim(0), qkv.dim(1), heads, qkv.dim(2) / (3 * heads)}; }
  void check() const {
    DS_REQUIRE(qkv.rank == 3 && heads >= 1 && qkv.dim(2) >= 3 * heads && qkv.dim(2) % (3 * heads) == 0);
    auto [B, T, H, D] = shape();
    DS_REQUIRE(layout.fits(H, T));
    DS_REQUIRE(is_float(qkv.dtype) && dqkv.dtype == qkv.dtype && dqkv.numel() == qkv.numel());
    DS_REQUIRE(out.dtype == qkv.dtype && out.numel() == B * T * H * D);
    DS_REQUIRE(dout.dtype == qkv.dtype && dout.numel() == out.numel());
    DS_REQUIRE(lse.numel() == B * H * T && (lse.dtype == DType::f32 || lse.dtype == DType::f64));
    DS_REQUIRE(!slopes || (slopes.numel() == H && slopes.dtype == lse.dtype));
    DS_REQUIRE(!added || ((added.numel() == H * T * T || added.numel() == T * T) && added.dtype == lse.dtype));
    DS_REQUIRE(!mask || (mask.numel() == B * T && mask.dtype == DType::u8));
    DS_REQUIRE(T < (1 << 24) && dropout >= 0 && dropout < 1 && seed >= 0 && offset >= 0);
    DS_REQUIRE(!overlap(dqkv, qkv) && !overlap(dqkv, out) && !overlap(dqkv, dout) && !overlap(dqkv, lse));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(SparseAttention, sparse_attention)
DS_CPU_KERNEL(SparseAttentionBackward, sparse_attention_backward)

}  // namespace ds
