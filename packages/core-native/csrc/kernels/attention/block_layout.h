// Which blocks of a [T, T] matrix of scores exist in each head: what the block-sparse ops know of a pattern.
//   N = T / block rows and columns of blocks; heads share P distinct layouts
//   head_layout [H]: which layout a head has
//   by rows: the columns of row r of layout p are columns[row_start[p, r]] .. columns[row_start[p, r + 1] - 1]
//   by columns: its rows of column c likewise in rows, by column_start; places: where that block stands by rows
// shapes: row_start, column_start [P, N + 1], rising, into columns, rows, places [Z], Z the blocks of all layouts
// dtypes: i32. Lists ascend. A block on the diagonal is the only one that causality cuts, so blocks carry no flags.
// The lists' contents are known to the kernels alone: they call validate() before anything is read by them.
#pragma once
#include <algorithm>
#include <string>

#include "../../runtime/op_fields.h"

namespace ds {

// What a layout's lists must be.
enum class LayoutRule { heads, starts, lists, places };

inline Error bad_layout(const char* op, LayoutRule rule) {
  const char* rules[] = {"a known layout for every head", "rising starts", "lists that ascend inside the sequence",
                         "places inside their layout"};
  return Error("SHAPE", op, "a block layout with " + std::string(rules[int(rule)]), "another one",
               "make it with BlockLayout, which sorts and counts");
}

struct BlockLayout {
  Tensor head_layout, row_start, columns, column_start, rows, places;
  int64_t block;

  void visit(auto& v) { v(head_layout, row_start, columns, column_start, rows, places, block); }
  int64_t layouts() const { return row_start.dim(0); }
  int64_t side() const { return row_start.dim(1) - 1; }  // N

  // Whether the tensors fit together and describe the heads of sequences of T tokens.
  bool fits(int64_t H, int64_t T) const {
    if (block != 16 && block != 32 && block != 64 && block != 128) return false;
    for (const Tensor* t : {&head_layout, &row_start, &columns, &column_start, &rows, &places})
      if (t->dtype != DType::i32) return false;
    return row_start.rank == 2 && row_start.dim(1) >= 1 && side() * block == T &&
           column_start.numel() == row_start.numel() && head_layout.numel() == H && layouts() >= 1 &&
           columns.numel() == rows.numel() && places.numel() == rows.numel() && columns.numel() < (1ll << 31);
  }

  int64_t layout_of(int64_t h) const { return head_layout.as<int32_t>()[h]; }
  // The places in `columns` of a layout's row, from first to the one behind the last.
  const int32_t* row_range(int64_t p, int64_t r) const { return row_start.as<int32_t>() + p * (side() + 1) + r; }
  const int32_t* column_range(int64_t p, int64_t c) const { return column_start.as<int32_t>() + p * (side() + 1) + c; }
  int64_t first_block(int64_t p) const { return *row_range(p, 0); }
  int64_t count(int64_t p) const { return *row_range(p, side()) - *row_range(p, 0); }

  void validate(const char* op) const {
    int64_t Z = columns.numel(), N = side(), P = layouts();
    auto check = [&](bool ok, LayoutRule rule) {
      if (!ok) throw bad_layout(op, rule);
    };
    auto numbers = [](const Tensor& t) { return t.as<int32_t>(); };
    for (int64_t h = 0; h < head_layout.numel(); ++h)
      check(numbers(head_layout)[h] >= 0 && numbers(head_layout)[h] < P, LayoutRule::heads);
    for (auto [starts, list] : {std::pair{&row_start, &columns}, {&column_start, &rows}})
      for (int64_t i = 0; i < P * (N + 1); ++i) {
        int32_t from = numbers(*starts)[i], to = i + 1 < P * (N + 1) ? numbers(*starts)[i + 1] : int32_t(Z);
        check(from >= 0 && from <= to && to <= Z, LayoutRule::starts);
        if (i % (N + 1) == N) continue;
        for (int32_t at = from; at < to; ++at)
          check(numbers(*list)[at] >= (at > from ? numbers(*list)[at - 1] + 1 : 0) && numbers(*list)[at] < N,
                LayoutRule::lists);
      }
    for (int64_t p = 0; p < P; ++p)
      for (int32_t at = *column_range(p, 0); at < *column_range(p, N); ++at)
        check(numbers(places)[at] >= *row_range(p, 0) && numbers(places)[at] < *row_range(p, N), LayoutRule::places);
  }
};

}  // namespace ds
