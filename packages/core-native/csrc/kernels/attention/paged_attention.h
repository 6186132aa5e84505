// paged_attention: causal attention of a batch's rows over the keys and values of their sequences, in pages.
//   out = softmax(scale * q k^T + slope[h] * (j - i)) v per row and head; query head h has key-value head h / (H / G)
//   the row at position i sees the tokens j <= i, and with a window (> 0) only those with i - j < window
//   the keys and values of the rows themselves are in their pages already (paged_write)
// shapes: q, out [R, H * D], slopes [H] (ALiBi, optional); pages and rows as paged_pages.h says
// dtypes: q, out one of f32, bf16, f16 (f64 on ref), arithmetic in f32; slopes f32 (f64). On cuda, 16-bit rows round
//   the probabilities to their dtype
// alias: none
// exact: on the cpu the bits of a row of finite numbers depend on what it sees alone: not on R, S, the other rows, how
// a sequence is cut into
//   calls, threads, nor on the size and the places of its pages. Keys are taken in blocks of 64, newest first, with the
//   softmax kept online, in segments of 512 by their places, which are put together newest first. In the first segment
//   that is the arithmetic of attention(), beyond it the two agree within rounding. On cuda: the same bits in every run
// precision: as attention: a probability under 1e-30 of its row's largest counts as 0
// limits: D <= 256; H % G == 0; M * page < 2^24
// source: as attention; Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving with
//   PagedAttention", sec. 4.3; Beltagy et al. 2020, "Longformer" (sliding window), sec. 3.1
#pragma once
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "paged_pages.h"

namespace ds {

struct PagedAttention {
  static constexpr const char* name = "paged_attention";
  Tensor out, q;
  PagedKeyValues kv;
  PagedRows rows;
  Optional slopes;
  int64_t heads, window;
  double scale;

  void visit(auto& v) { v(out, q, kv, rows, slopes, heads, window, scale); }
  // How many tokens a row sees before itself at most.
  int64_t back() const { return window > 0 ? window - 1 : int64_t(1) << 31; }
  void check() const {
    DS_REQUIRE(is_float(q.dtype) && kv.fits(q.dtype) && q.rank == 2 && rows.fits(q.dim(0)));
    DS_REQUIRE(heads >= 1 && heads % kv.heads() == 0 && q.dim(1) == heads * kv.size());
    DS_REQUIRE(out.dtype == q.dtype && out.numel() == q.numel());
    DS_REQUIRE(!slopes || (slopes.numel() == heads && (slopes.dtype == DType::f32 || slopes.dtype == DType::f64)));
    DS_REQUIRE(rows.table() * kv.page() < (1 << 24) && window >= 0 && window <= (1ll << 31));
    DS_REQUIRE(!overlap(out, q) && !overlap(out, kv.keys) && !overlap(out, kv.values));
  }
  void validate() const { rows.validate(name, q.dim(0), kv, back()); }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(PagedAttention, paged_attention)

}  // namespace ds
