// attention: out = softmax(scale * q k^T + bias) v for every head, never holding a [T, T] matrix.
//   qkv as BLOOM lays it out: [B, T, H, 3, D], the query, key and value of a head side by side
//   bias[i, j] = slope[h] * (position[j] - position[i])  (ALiBi), position[j] = max(0, real tokens up to j - 1)
//   key j is visible to query i when mask[b, j] != 0 and (not causal or j <= i); the others have probability 0
//   lse[i] = log sum over visible j of exp(scale * q k^T + bias)
//   dropout: probability (i, j) of head h is kept when (word >> 8) / 2^24 >= p and then divided by 1 - p, with word =
//   Philox4x32-10(key = seed, counter = offset + e / 4)[e % 4], e = ((b * H + h) * T + i) * T + j; lse knows nothing of
//   it
// shapes: qkv [B, T, H * 3 * D], out [B, T, H * D], lse [B, H, T], slopes [H], mask [B, T]
// dtypes: qkv, out one of f32, bf16, f16 (f64 on ref), arithmetic in f32; lse, slopes f32 (f64 on ref); mask u8
// alias: none
// saves: qkv, out, lse (and slopes, mask)
// masked rows: a query without a visible key has out 0, lse -inf and gradients 0
// exact: a query's bits depend on its own visible keys alone: not on threads, batch neighbours or what follows it
// precision: a probability under 1e-30 of its row's largest counts as 0 and blocks of such keys are not visited
// limits: B, T >= 0, H, D >= 1 (cuda: D <= 256); positions below 2^24; a dropout call uses ceil(B * H * T * T / 4)
// counters source: Dao et al. 2022, "FlashAttention", alg. 1, 4; Press et al. 2022, "Train Short, Test Long" (ALiBi),
// sec. 3;
//   Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"
//
// attention_backward: with P the probabilities, M the dropout mask / (1 - p), delta[i] = sum over d of dout * out,
//   dv = (P * M)^T dout;  dS = P * (M * (dout v^T) - delta);  dq = scale * dS k;  dk = scale * dS^T q
// P is computed again from qkv and lse. Sums over keys and over queries run in the order of their index.
#pragma once
#include <cmath>

#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct AttentionShape {
  int64_t B, T, H, D;
};

// keep = (word >> 8) >= threshold
inline uint32_t dropout_threshold(double p) { return uint32_t(std::ceil(p * 0x1p24)); }

struct Attention {
  static constexpr const char* name = "attention";
  Tensor out, lse, qkv;
  Optional slopes, mask;
  int64_t heads;
  double scale;
  bool causal;
  double dropout;
  int64_t seed, offset;

  void visit(auto& v) { v(out, lse, qkv, slopes, mask, heads, scale, causal, dropout, seed, offset); }
  AttentionShape shape() const { return {qkv.dim(0), qkv.dim(1), heads, qkv.dim(2) / (3 * heads)}; }
  void check() const {
    DS_REQUIRE(qkv.rank == 3 && heads >= 1 && qkv.dim(2) >= 3 * heads && qkv.dim(2) % (3 * heads) == 0);
    auto [B, T, H, D] = shape();
    DS_REQUIRE(is_float(qkv.dtype) && out.dtype == qkv.dtype && out.numel() == B * T * H * D);
    DS_REQUIRE(lse.numel() == B * H * T && (lse.dtype == DType::f32 || lse.dtype == DType::f64));
    DS_REQUIRE(!slopes || (slopes.numel() == H && slopes.dtype == lse.dtype));
    DS_REQUIRE(!mask || (mask.numel() == B * T && mask.dtype == DType::u8));
    DS_REQUIRE(T < (1 << 24) && dropout >= 0 && dropout < 1 && seed >= 0 && offset >= 0);
    DS_REQUIRE(!overlap(out, qkv) && !overlap(lse, qkv) && !overlap(lse, out));
  }
  void ref() const;
  void cpu() const;
};

struct AttentionBackward {
  static constexpr const char* name = "attention_backward";
  Tensor dqkv, dout, qkv, out, lse;
  Optional slopes, mask;
  int64_t heads;
  double scale;
  bool causal;
  double dropout;
  int64_t seed, offset;

  void visit(auto& v) { v(dqkv, dout, qkv, out, lse, slopes, mask, heads, scale, causal, dropout, seed, offset); }
  AttentionShape shape() const { return {qkv.dim(0), qkv.dim(1), heads, qkv.dim(2) / (3 * heads)}; }
  void check() const {
    DS_REQUIRE(qkv.rank == 3 && heads >= 1 && qkv.dim(2) >= 3 * heads && qkv.dim(2) % (3 * heads) == 0);
    auto [B, T, H, D] = shape();
    DS_REQUIRE(is_float(qkv.dtype) && dqkv.dtype == qkv.dtype && dqkv.numel() == qkv.numel());
    DS_REQUIRE(out.dtype == qkv.dtype && out.numel() == B * T * H * D);
    DS_REQUIRE(dout.dtype == qkv.dtype && dout.numel() == out.numel());
    DS_REQUIRE(lse.numel() == B * H * T && (lse.dtype == DType::f32 || lse.dtype == DType::f64));
    DS_REQUIRE(!slopes || (slopes.numel() == H && slopes.dtype == lse.dtype));
    DS_REQUIRE(!mask || (mask.numel() == B * T && mask.dtype == DType::u8));
    DS_REQUIRE(T < (1 << 24) && dropout >= 0 && dropout < 1 && seed >= 0 && offset >= 0);
    DS_REQUIRE(!overlap(dqkv, qkv) && !overlap(dqkv, out) && !overlap(dqkv, dout) && !overlap(dqkv, lse));
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(Attention, attention)
DS_CPU_KERNEL(AttentionBackward, attention_backward)

}  // namespace ds
