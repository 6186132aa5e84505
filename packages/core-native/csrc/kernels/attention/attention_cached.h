// attention_cached: causal attention of T new tokens over themselves and the `past` ones before them in a cache.
//   Writes the new keys and values at places past .. past + T - 1, then as attention over places 0 .. past + T - 1.
// shapes: qkv [B, T, H * 3 * D], out [B, T, H * D], k_cache, v_cache [B, H, S, D], slopes [H], mask [B, M], M >= past +
// T dtypes: qkv, out, k_cache, v_cache one of f32, bf16, f16 (f64 on ref), arithmetic in f32; slopes f32 (f64); mask u8
// order in k_cache: per head, groups of 16 tokens (the last one S % 16), each transposed to [D, 16], so that the scores
//   of 16 keys are one vector; see cached_key. v_cache is in row-major order.
// alias: none; places from past + T on are neither read nor written
// exact: as attention; and a token's bits are the same in one call or in several, by cache or by attention()
// limits: past + T <= S; the mask covers the past too: 0 for a place that holds padding
// source: as attention
#pragma once
#include "attention.h"

namespace ds {

constexpr int64_t kCacheGroup = 16;

// Where element d of the key at place j is, in a head's [S, D] part of the cache.
constexpr int64_t cached_key(int64_t j, int64_t d, int64_t S, int64_t D) {
  int64_t first = j / kCacheGroup * kCacheGroup, width = S - first < kCacheGroup ? S - first : kCacheGroup;
  return first * D + d * width + (j - first);
}

struct AttentionCached {
  static constexpr const char* name = "attention_cached";
  Tensor out, k_cache, v_cache, qkv;
  Optional slopes, mask;
  int64_t heads, past;
  double scale;

  void visit(auto& v) { v(out, k_cache, v_cache, qkv, slopes, mask, heads, past, scale); }
  void check() const {
    DS_REQUIRE(qkv.rank == 3 && heads >= 1 && qkv.dim(2) >= 3 * heads && qkv.dim(2) % (3 * heads) == 0);
    int64_t B = qkv.dim(0), T = qkv.dim(1), D = qkv.dim(2) / (3 * heads);
    DS_REQUIRE(is_float(qkv.dtype) && out.dtype == qkv.dtype && out.numel() == B * T * heads * D);
    DS_REQUIRE(k_cache.rank == 4 && v_cache.rank == 4 && k_cache.dtype == qkv.dtype && v_cache.dtype == qkv.dtype);
    DS_REQUIRE(k_cache.dim(0) == B && k_cache.dim(1) == heads && k_cache.dim(3) == D);
    DS_REQUIRE(v_cache.dim(2) == k_cache.dim(2) && v_cache.numel() == k_cache.numel());
    DS_REQUIRE(past >= 0 && past + T <= k_cache.dim(2) && k_cache.dim(2) < (1 << 24));
    DS_REQUIRE(!slopes || (slopes.numel() == heads && (slopes.dtype == DType::f32 || slopes.dtype == DType::f64)));
    DS_REQUIRE(!mask || (mask.rank == 2 && mask.dim(0) == B && mask.dim(1) >= past + T && mask.dtype == DType::u8));
    DS_REQUIRE(!overlap(k_cache, v_cache) && !overlap(out, qkv) && !overlap(out, k_cache) && !overlap(out, v_cache));
    DS_REQUIRE(!overlap(qkv, k_cache) && !overlap(qkv, v_cache));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(AttentionCached, attention_cached)

}  // namespace ds
