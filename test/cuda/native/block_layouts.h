// Block layouts for the tests of the block-sparse kernels.
#pragma once
#include <functional>

#include "cases.h"
#include "kernels/attention/block_matmul.h"

namespace ds::test {

// Two layouts of N x N blocks, given to the heads in turn: those that `is_there(layout, row, column)`.
inline BlockLayout block_layout(Cases& cases, int64_t block, int64_t N, int64_t heads,
                                const std::function<bool(int64_t, int64_t, int64_t)>& is_there) {
  std::vector<int32_t> head_layout, row_start, columns, column_start, rows, places;
  std::vector<int32_t> place(size_t(2 * N * N));
  for (int64_t h = 0; h < heads; ++h) head_layout.push_back(int32_t(h % 2));
  for (int64_t p = 0; p < 2; ++p) {
    for (int64_t r = 0; r <= N; ++r) {
      row_start.push_back(int32_t(columns.size()));
      for (int64_t c = 0; r < N && c < N; ++c)
        if (is_there(p, r, c)) {
          place[size_t((p * N + r) * N + c)] = int32_t(columns.size());
          columns.push_back(int32_t(c));
        }
    }
    for (int64_t c = 0; c <= N; ++c) {
      column_start.push_back(int32_t(rows.size()));
      for (int64_t r = 0; c < N && r < N; ++r)
        if (is_there(p, r, c)) {
          rows.push_back(int32_t(r));
          places.push_back(place[size_t((p * N + r) * N + c)]);
        }
    }
  }
  auto list = [&](const std::vector<int32_t>& values, std::vector<int64_t> dims) {
    Tensor t = cases.tensor(DType::i32, dims);
    for (size_t i = 0; i < values.size(); ++i) put(t, int64_t(i), values[i]);
    return t;
  };
  auto size = [](const auto& values) { return int64_t(values.size()); };
  return {list(head_layout, {heads}),
          list(row_start, {2, N + 1}),
          list(columns, {size(columns)}),
          list(column_start, {2, N + 1}),
          list(rows, {size(rows)}),
          list(places, {size(places)}),
          block};
}

struct Drawn {
  int64_t block, N;
  const char* name;
  std::function<bool(int64_t, int64_t, int64_t)> is_there;
};

// Full rows, empty rows and columns, a band, everything, nothing; in every size of block.
inline std::vector<Drawn> drawn_layouts() {
  auto holes = [](int64_t p, int64_t r, int64_t c) { return r % 3 != 1 && c % 4 != 2 && (r * 7 + c * 5 + p) % 3 != 0; };
  auto globals = [](int64_t p, int64_t r, int64_t c) { return r == p || c == 1 || r / 2 == c / 2; };
  return {{16, 1, "one", [](int64_t, int64_t, int64_t) { return true; }},
          {16, 7, "holes", holes},
          {16, 9, "globals", globals},
          {32, 5, "holes", holes},
          {64, 3, "globals", globals},
          {128, 2, "lower", [](int64_t p, int64_t r, int64_t c) { return c <= r + p; }},
          {32, 2, "none", [](int64_t, int64_t, int64_t) { return false; }},
          {64, 2, "second layout only", [](int64_t p, int64_t r, int64_t c) { return p == 1 && r != c; }}};
}

}  // namespace ds::test
