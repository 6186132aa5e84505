// What the passes of block-sparse attention know of all heads.
#pragma once
#include <optional>

#include "blocks.h"
#include "keep_bits.h"
#include "key_norms.h"
#include "sparse_attention.h"

namespace ds::DS_ISA {

template <class Op>
struct SparseHeads {
  const Op& op;
  AttentionShape s = op.shape();
  Places places{op.mask ? op.mask.template as<uint8_t>() : nullptr, s.T, s.B, s.T};
  // Nothing bounds an arbitrary bias: beside one, no block can be told to be negligible.
  KeyNorms norms{op.added ? Optional{} : op.slopes, s.B, s.H, s.T, s.T};

  explicit SparseHeads(const Op& op) : op(op) { op.layout.validate(Op::name); }

  template <class T>
  void fill_norms() {
    norms.fill([&](int64_t bh, int64_t first, int64_t n) {
      return largest_square(head_rows<const T>(op.qkv, s, bh / s.H, bh % s.H, 1), first, n, s.D);
    });
  }
  Sight sight(int64_t bh) const {
    float slope = op.slopes ? op.slopes.template as<float>()[bh % s.H] * kLog2E : 0.0f;
    Sight sight{op.causal, slope, places.position(bh / s.H), places.mask(bh / s.H)};
    if (op.added) {
      sight.added = op.added.template as<float>() + (op.added.numel() == s.T * s.T ? 0 : bh % s.H * s.T * s.T);
      sight.T = s.T;
    }
    return sight;
  }
  std::optional<KeepBits> keep(int64_t bh) const {
    return op.dropout > 0 ? std::optional<KeepBits>(std::in_place, op.dropout, op.seed, op.offset, bh * s.T, s.T)
                          : std::nullopt;
  }
  // Whether the keys first .. first + n - 1 are negligible to all queries of a strip of either pass.
  template <class Queries>
  bool may_skip(const Queries& queries, const Sight& sight, int64_t bh, int64_t first, int64_t n) const {
    if (!norms.of_head(bh)) return false;
    float norm = std::max(norms.of(bh, first / kKeyBlock), norms.of(bh, (first + n - 1) / kKeyBlock));
    return queries.may_skip(norm, sight.largest_bias(first, n), sight.slope);
  }
};

// Tokens first .. first + n - 1 that lie in a thread's blocks.
struct Fetched {
  int64_t first = 0, n = 0;
  bool holds(int64_t from, int64_t count) const { return from >= first && from + count <= first + n; }
};

}  // namespace ds::DS_ISA
