// paged_write: from the fused projections of a batch, its queries, and its keys and values in their pages.
//   row r of qkv: H query heads, G key heads, G value heads, D elements each
//   1. norm, where there is a weight: x = x / sqrt(mean(x^2) + eps) * weight, over each head (weight of D elements) or
//      over all heads of the row (H * D for queries, G * D for keys)
//   2. rotary, where there is a table: with (c, s) = table[position, d], table[position, half + d] and d < half,
//      (x[a], x[b]) = (x[a] c - x[b] s, x[b] c + x[a] s); (a, b) = (d, d + half), or (2 d, 2 d + 1) if `interleaved`
//   3. queries go to q; keys and values to place position % page of page pages[s, position / page]
// shapes: qkv [R, (H + 2 G) * D], q [R, H * D], table [positions, 2 * half], 2 * half <= D; pages and rows as
//   paged_pages.h says
// dtypes: qkv, q one of f32, bf16, f16 (f64 on ref), arithmetic in f32, rounded once; table f32 (f64); weights f32, or
//   that of qkv. Pages of bytes: scale = max|x| / 127 over the head, byte = x * (127 / max|x|), each in f32, to nearest
//   even (both 0 where max|x| is below 2^-100); a head with a NaN or an infinity reads as NaN
// alias: none. Two sequences that write one place: either may win
// exact: a row's bits depend on it and its position alone; keys and values that are f32 and neither normed nor rotated
//   arrive as they are
// limits: D <= 256; H % G == 0
// source: Su et al. 2021, "RoFormer", eq. 34; Kwon et al. 2023, "Efficient Memory Management for Large Language Model
//   Serving with PagedAttention", sec. 4.1
#pragma once
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "paged_pages.h"

namespace ds {

constexpr float kLeastHeadMagnitude = 0x1p-100f;

struct PagedWrite {
  static constexpr const char* name = "paged_write";
  Tensor q;
  PagedKeyValues kv;
  Tensor qkv;
  PagedRows rows;
  Optional table, query_norm, key_norm;
  int64_t heads;
  bool interleaved;
  double eps;

  void visit(auto& v) { v(q, kv, qkv, rows, table, query_norm, key_norm, heads, interleaved, eps); }
  int64_t half() const { return table ? table.dim(1) / 2 : 0; }
  bool is_weight(const Tensor& t, int64_t n) const {
    return !t.present ||
           ((t.numel() == kv.size() || t.numel() == n * kv.size()) && (t.dtype == qkv.dtype || t.dtype == DType::f32));
  }
  void check() const {
    DS_REQUIRE(is_float(qkv.dtype) && kv.fits(qkv.dtype) && qkv.rank == 2 && rows.fits(qkv.dim(0)));
    DS_REQUIRE(heads >= 1 && heads % kv.heads() == 0 && qkv.dim(1) == (heads + 2 * kv.heads()) * kv.size());
    DS_REQUIRE(q.dtype == qkv.dtype && q.numel() == qkv.dim(0) * heads * kv.size());
    DS_REQUIRE(!table || (table.rank == 2 && table.dim(1) % 2 == 0 && table.dim(1) <= kv.size()));
    DS_REQUIRE(!table || table.dtype == DType::f32 || table.dtype == DType::f64);
    DS_REQUIRE(is_weight(query_norm, heads) && is_weight(key_norm, kv.heads()));
    DS_REQUIRE(!overlap(q, qkv) && !overlap(kv.keys, kv.values) && !overlap(kv.keys, qkv) && !overlap(kv.values, qkv));
    DS_REQUIRE(!overlap(q, kv.keys) && !overlap(q, kv.values));
  }
  // Fails for numbers that no table or page is there for.
  void validate() const {
    rows.validate(name, qkv.dim(0), kv, 0);
    for (int64_t s = 0; table && s < rows.sequences(); ++s)
      if (rows.count(s) > 0 && rows.tokens(s) > table.dim(0))
        throw bad_rows(name, RowRule::position, s, rows.tokens(s) - 1, table.dim(0));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(PagedWrite, paged_write)

}  // namespace ds
