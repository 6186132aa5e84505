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
  layout.places = numbers({Z}, std::vector<int32_t>(size_t(Z), 0));
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

const Family family(sparse_attention);

}  // namespace
}  // namespace ds::test
