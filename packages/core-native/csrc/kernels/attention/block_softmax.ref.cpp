#include "block_softmax.h"

#include <cmath>

#include "../common/ref.h"

namespace ds {
namespace {

// Calls body(block row, i) for every row i of every row of blocks.
void for_rows(const Tensor& s, const BlockLayout& layout, auto&& body) {
  auto blocks = head_blocks(layout);
  for (int64_t bh = 0; bh < s.dim(0) * layout.head_layout.numel(); ++bh)
    for (int64_t r = 0; r < layout.side(); ++r)
      for (int64_t i = 0; i < layout.block; ++i) body(BlockRow(layout, blocks, bh, r), i);
}

}  // namespace

void BlockSoftmax::ref() const {
  require_blocks(name, s, layout);
  int64_t n = layout.block, T = tokens();
  for_rows(s, layout, [&](const BlockRow& row, int64_t i) {
    auto score = [&](int64_t k, int64_t j) {
      int64_t query = row.query(i), key = row.key(k) + j;
      bool visible = (!mask || get(mask, row.b * T + key) != 0) && (!causal || key <= query);
      double bias = added ? get(added, ((added.numel() == T * T ? 0 : row.h) * T + query) * T + key) : 0;
      return visible ? scale * get(s, row.at(k, i) + j) + bias : -INFINITY;
    };
    double largest = -INFINITY, total = 0;
    for (int64_t k = 0; k < row.count; ++k)
      for (int64_t j = 0; j < n; ++j) largest = std::fmax(largest, score(k, j));
    if (largest == -INFINITY) largest = 0;
    for (int64_t k = 0; k < row.count; ++k)
      for (int64_t j = 0; j < n; ++j) total += std::exp(score(k, j) - largest);
    for (int64_t k = 0; k < row.count; ++k)
      for (int64_t j = 0; j < n; ++j) put(p, row.at(k, i) + j, total > 0 ? std::exp(score(k, j) - largest) / total : 0);
  });
}

void BlockSoftmaxBackward::ref() const {
  require_blocks(name, p, layout);
  for_rows(p, layout, [&](const BlockRow& row, int64_t i) {
    double sum = 0;
    for (int64_t k = 0; k < row.count; ++k)
      for (int64_t at = row.at(k, i); at < row.at(k, i) + layout.block; ++at) sum += get(p, at) * get(dp, at);
    for (int64_t k = 0; k < row.count; ++k)
      for (int64_t at = row.at(k, i); at < row.at(k, i) + layout.block; ++at)
        put(ds, at, scale * get(p, at) * (get(dp, at) - sum));
  });
}

}  // namespace ds
