// The specification of attention, of all kinds: plain loops over every pair of a query and a key.
#pragma once
#include <vector>

#include "../common/philox.h"
#include "../common/ref.h"
#include "attention.h"
#include "block_layout.h"

namespace ds {

// What the specification knows of one head of one sequence. Op is one of attention's ops, forward or backward; one with
// a block layout sees only the blocks of it.
template <class Op>
struct Head {
  static constexpr bool kSparse = requires(const Op& op) { op.layout; };
  const Op& op;
  int64_t b, h;
  AttentionShape s = op.shape();
  std::vector<int64_t> position = std::vector<int64_t>(size_t(s.T));
  std::vector<bool> listed = {};  // [N, N]

  Head(const Op& op, int64_t b, int64_t h) : op(op), b(b), h(h) {
    for (int64_t j = 0, real = 0; j < s.T; ++j) {
      real += is_real(j);
      position[size_t(j)] = real > 0 ? real - 1 : 0;
    }
    if constexpr (kSparse) {
      int64_t N = op.layout.side(), p = op.layout.layout_of(h);
      listed.resize(size_t(N * N));
      for (int64_t r = 0; r < N; ++r)
        for (int64_t at = op.layout.row_range(p, r)[0]; at < op.layout.row_range(p, r)[1]; ++at)
          listed[size_t(r * N + op.layout.columns.template as<int32_t>()[at])] = true;
    }
  }
  // which: 0 query, 1 key, 2 value
  int64_t at(int64_t i, int64_t which, int64_t d) const { return (((b * s.T + i) * s.H + h) * 3 + which) * s.D + d; }
  int64_t out_at(int64_t i, int64_t d) const { return ((b * s.T + i) * s.H + h) * s.D + d; }
  int64_t row_at(int64_t i) const { return (b * s.H + h) * s.T + i; }
  bool is_real(int64_t j) const { return !op.mask || get(op.mask, b * s.T + j) != 0; }
  bool visible(int64_t i, int64_t j) const {
    if constexpr (kSparse) {
      int64_t b = op.layout.block, N = op.layout.side();
      if (!listed[size_t(i / b * N + j / b)]) return false;
    }
    return is_real(j) && (!op.causal || j <= i);
  }
  double score(int64_t i, int64_t j) const {
    double dot = 0;
    for (int64_t d = 0; d < s.D; ++d) dot += get(op.qkv, at(i, 0, d)) * get(op.qkv, at(j, 1, d));
    double slope = op.slopes ? get(op.slopes, h) : 0, added = 0;
    if constexpr (kSparse)
      if (op.added) added = get(op.added, ((op.added.numel() == s.T * s.T ? 0 : h) * s.T + i) * s.T + j);
    return op.scale * dot + slope * double(position[size_t(j)] - position[size_t(i)]) + added;
  }
  // 0 where dropped, else 1 / (1 - p)
  double keep(int64_t i, int64_t j) const {
    if (op.dropout == 0) return 1;
    int64_t e = row_at(i) * s.T + j;
    uint32_t word = philox(uint64_t(op.offset + e / 4), uint64_t(op.seed)).word[e % 4];
    return (word >> 8) >= dropout_threshold(op.dropout) ? 1 / (1 - op.dropout) : 0;
  }
};

template <class Op>
void for_heads(const Op& op, auto&& fn) {
  for (int64_t b = 0; b < op.shape().B; ++b)
    for (int64_t h = 0; h < op.shape().H; ++h) fn(Head<Op>(op, b, h));
}

template <class Op>
void attend_plainly(const Op& op) {
  auto [B, T, H, D] = op.shape();
  std::vector<double> weight(size_t(T), 0.0), sum(size_t(D), 0.0);
  for_heads(op, [&, T = T, D = D](const Head<Op>& head) {
    for (int64_t i = 0; i < T; ++i) {
      double largest = -INFINITY, total = 0;
      for (int64_t j = 0; j < T; ++j) {
        weight[size_t(j)] = head.visible(i, j) ? head.score(i, j) : -INFINITY;
        largest = std::fmax(largest, weight[size_t(j)]);
      }
      sum.assign(size_t(D), 0.0);
      for (int64_t j = 0; j < T; ++j) {
        if (!head.visible(i, j)) continue;
        double p = std::exp(weight[size_t(j)] - largest);
        total += p;
        p *= head.keep(i, j);
        for (int64_t d = 0; d < D; ++d) sum[size_t(d)] += p * get(op.qkv, head.at(j, 2, d));
      }
      for (int64_t d = 0; d < D; ++d) put(op.out, head.out_at(i, d), total > 0 ? sum[size_t(d)] / total : 0);
      put(op.lse, head.row_at(i), total > 0 ? largest + std::log(total) : -INFINITY);
    }
  });
}

template <class Op>
void attend_backward_plainly(const Op& op) {
  auto [B, T, H, D] = op.shape();
  std::vector<double> gradient(size_t(T * 3 * D));  // of one head: [T, 3, D]
  for_heads(op, [&, T = T, D = D](const Head<Op>& head) {
    gradient.assign(size_t(T * 3 * D), 0.0);
    auto at = [&](int64_t i, int64_t which, int64_t d) -> double& { return gradient[size_t((i * 3 + which) * D + d)]; };
    for (int64_t i = 0; i < T; ++i) {
      double delta = 0;
      for (int64_t d = 0; d < D; ++d) delta += get(op.dout, head.out_at(i, d)) * get(op.out, head.out_at(i, d));
      for (int64_t j = 0; j < T; ++j) {
        if (!head.visible(i, j)) continue;
        double p = std::exp(head.score(i, j) - get(op.lse, head.row_at(i))), keep = head.keep(i, j), dp = 0;
        for (int64_t d = 0; d < D; ++d) {
          dp += get(op.dout, head.out_at(i, d)) * get(op.qkv, head.at(j, 2, d));
          at(j, 2, d) += p * keep * get(op.dout, head.out_at(i, d));
        }
        double ds = p * (keep * dp - delta);
        for (int64_t d = 0; d < D; ++d) {
          at(i, 0, d) += op.scale * ds * get(op.qkv, head.at(j, 1, d));
          at(j, 1, d) += op.scale * ds * get(op.qkv, head.at(i, 0, d));
        }
      }
    }
    for (int64_t i = 0; i < T; ++i)
      for (int64_t which = 0; which < 3; ++which)
        for (int64_t d = 0; d < D; ++d) put(op.dqkv, head.at(i, which, d), at(i, which, d));
  });
}

}  // namespace ds
