#include "kernels/attention/sparse_attention.h"

#include "cases.h"

namespace ds::test {
namespace {

// A layout of which block (r, c) of layout p is there when is_there(p, r, c).
template <class IsThere>
BlockLayout layout_of(Cases& cases, int64_t H, int64_t N, int64_t P, int64_t block, IsThere&& is_there) {
  std::vector<int32_t> starts[2], lists[2], places;
  for (int way : {0, 1})  // by rows, by columns
    for (int64_t p = 0; p < P; ++p)
      for (int64_t i = 0; i <= N; ++i) {
        starts[way].push_back(int32_t(lists[way].size()));
        for (int64_t j = 0; i < N && j < N; ++j)
          if (way == 0 ? is_there(p, i, j) : is_there(p, j, i)) lists[way].push_back(int32_t(j));
      }
  for (int64_t p = 0; p < P; ++p)
    for (int64_t c = 0; c < N; ++c)
      for (size_t i = size_t(starts[1][size_t(p * (N + 1) + c)]); i < size_t(starts[1][size_t(p * (N + 1) + c + 1)]);
           ++i) {
        auto row = size_t(p * (N + 1) + lists[1][i]);
        auto begin = lists[0].begin() + starts[0][row], end = lists[0].begin() + starts[0][row + 1];
        places.push_back(int32_t(std::find(begin, end, int32_t(c)) - lists[0].begin()));
      }
  auto numbers = [&](std::vector<int64_t> dims, const std::vector<int32_t>& values) {
    Tensor t = cases.tensor(DType::i32, dims);
    for (size_t i = 0; i < values.size(); ++i) t.as<int32_t>()[i] = values[i];
    return t;
  };
  std::vector<int32_t> heads;
  for (int64_t h = 0; h < H; ++h) heads.push_back(int32_t(h % P));
  int64_t Z = int64_t(lists[0].size());
  BlockLayout layout;
  layout.head_layout = numbers({H}, heads);
  layout.row_start = numbers({P, N + 1}, starts[0]);
  layout.columns = numbers({Z}, lists[0]);
  layout.column_start = numbers({P, N + 1}, starts[1]);
  layout.rows = numbers({Z}, lists[1]);
  layout.places = numbers({Z}, places);
  layout.block = block;
  return layout;
}

struct Shape {
  int64_t blocks, block, H, D;
  bool causal = true, slopes = false, added = false, mask = false;
  double dropout = 0;
};

void sparse_attention(Cases& cases) {
  // More blocks than one window of the merged lists holds; several lists in a tile, one, and half of a block's.
  Shape shapes[] = {{0, 16, 1, 8},
                    {1, 16, 1, 8},
                    {7, 16, 2, 24, true, true},
                    {5, 32, 2, 16, false, true, true, true},
                    {2, 64, 1, 16, true, false, false, true, 0.3},
                    {2, 128, 1, 8, true, false, true},
                    {530, 16, 1, 1}};
  for (const Shape& s : shapes)
    for (DType dtype : kFloats) {
      bool large = s.blocks > 500;
      if (large && dtype != DType::bf16) continue;
      int64_t B = large ? 1 : 2, T = s.blocks * s.block;
      std::string what = std::to_string(s.blocks) + " x " + std::to_string(s.block) + " H " + std::to_string(s.H) +
                         " D " + std::to_string(s.D) + " " + dtype_name(dtype);
      cases.begin(0);
      SparseAttention op{};
      op.layout = layout_of(cases, s.H, s.blocks, s.H, s.block, [&](int64_t p, int64_t r, int64_t c) {
        return large ? (r % 176 == 1 && (c % 172 == 1 || c == r)) || c == 513 : (5 * r + 3 * c + p) % 7 < 4 && r != 2;
      });
      op.qkv = cases.tensor(dtype, {B, T, s.H * 3 * s.D});
      op.out = cases.tensor(dtype, {B, T, s.H * s.D});
      op.lse = cases.tensor(DType::f32, {B, s.H, T});
      if (s.slopes) op.slopes = Optional{cases.tensor(DType::f32, {s.H}, 0.1, 0.05)};
      if (s.added) op.added = Optional{cases.tensor(DType::f32, {s.H > 1 ? s.H : 1, T, T})};
      if (s.mask) {
        op.mask = Optional{cases.tensor(DType::u8, {B, T})};
        for (int64_t i = 0; i < B * T; ++i) put(op.mask, i, i % 5 != 0);
      }
      op.heads = s.H, op.causal = s.causal, op.scale = 1 / std::sqrt(double(s.D));
      op.dropout = s.dropout, op.seed = 77, op.offset = 2;
      double rounding = dtype == DType::bf16 ? 0x1p11 : dtype == DType::f16 ? 0x1p8 : 4;
      cases.run(op, what, double(T + s.D), rounding);

      op.ref();
      SparseAttentionBackward back{};
      back.dqkv = cases.tensor(dtype, {B, T, s.H * 3 * s.D});
      back.dout = cases.tensor(dtype, {B, T, s.H * s.D});
      back.qkv = op.qkv, back.out = op.out, back.lse = op.lse, back.layout = op.layout;
      back.slopes = op.slopes, back.added = op.added, back.mask = op.mask;
      back.heads = op.heads, back.causal = op.causal, back.scale = op.scale;
      back.dropout = op.dropout, back.seed = op.seed, back.offset = op.offset;
      cases.run(back, what, double(T + s.D), rounding * 8);
    }
}

// Lists that cannot be trusted are refused, and nothing outside them is read.
void bad_layouts(Cases& cases) {
  for (int broken = 0; broken < 5; ++broken) {
    cases.begin(0);
    SparseAttention op{};
    op.layout = layout_of(cases, 2, 3, 2, 16, [](int64_t, int64_t r, int64_t c) { return c <= r; });
    op.qkv = cases.tensor(DType::f32, {1, 48, 2 * 3 * 8});
    op.out = cases.tensor(DType::f32, {1, 48, 2 * 8});
    op.lse = cases.tensor(DType::f32, {1, 2, 48});
    op.heads = 2, op.scale = 1, op.causal = true;
    Tensor* lists[] = {&op.layout.head_layout, &op.layout.row_start, &op.layout.columns, &op.layout.rows,
                       &op.layout.places};
    constexpr int32_t wrong[] = {2, 1000, 3, -1, 8};  // the last: a place of the other layout
    lists[broken]->as<int32_t>()[1] = wrong[broken];
    cases.refuse(op, "another one");
  }
}

const Family family("sparse_attention", sparse_attention);
const Family refusals("bad_layouts", bad_layouts);

}  // namespace
}  // namespace ds::test
