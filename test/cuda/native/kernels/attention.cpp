#include "kernels/attention/attention.h"

#include "cases.h"

namespace ds::test {
namespace {

struct Shape {
  int64_t B, T, H, D, shift = 0;
  bool slopes = true, causal = true, mask = false;
  double dropout = 0;
};

std::string text(const Shape& s, DType dtype) {
  return "B " + std::to_string(s.B) + " T " + std::to_string(s.T) + " H " + std::to_string(s.H) + " D " +
         std::to_string(s.D) + " + " + std::to_string(s.shift) + " " + dtype_name(dtype) +
         (s.slopes ? "" : ", no slopes") + (s.causal ? "" : ", not causal") + (s.mask ? ", mask" : "") +
         (s.dropout > 0 ? ", dropout" : "");
}

// The first head's is so steep that keys 50 tokens away are negligible.
Optional slopes_of(Cases& cases, int64_t H) {
  Optional slopes{cases.tensor(DType::f32, {H})};
  for (int64_t h = 0; h < H; ++h) put(slopes, h, std::exp2(1 - 3.0 * double(h)));
  return slopes;
}

// Padding left in the first sequence, holes in the others; nothing but padding in the last one of three.
Optional mask_of(Cases& cases, int64_t B, int64_t T) {
  Optional mask{cases.tensor(DType::u8, {B, T})};
  for (int64_t i = 0; i < B * T; ++i) {
    int64_t b = i / T, t = i % T;
    put(mask, i, b == 0 ? t > 4 : b == 2 ? 0 : (7 * t + b) % 3 != 0);
  }
  return mask;
}

void attention(Cases& cases) {
  // Every width; rows that do not start at 16 bytes; one more and less than tiles hold; far keys that are not visited.
  Shape shapes[] = {{1, 1, 1, 16},
                    {0, 4, 1, 8},
                    {2, 0, 1, 8},
                    {2, 63, 2, 20},
                    {1, 65, 1, 64, 0, false},
                    {1, 129, 1, 16, 1},
                    {1, 66, 1, 72, 0, true, false},
                    {1, 35, 1, 136, 0, false, true, true},
                    {1, 18, 1, 256, 0, false, false, false, 0.2},
                    {3, 70, 1, 16, 0, true, true, true},
                    {3, 40, 1, 24, 0, false, false, true},
                    {1, 67, 1, 16, 0, true, false, true, 0.3},
                    {1, 33, 2, 17, 0, false, true, false, 0.2},
                    {1, 260, 1, 8},
                    {2, 257, 1, 8, 0, true, true, true}};
  for (const Shape& s : shapes)
    for (DType dtype : kFloats) {
      if (s.T > 200 && dtype == DType::f16) continue;  // the same code as bf16, and the longest
      cases.begin(s.shift);
      Attention op{};
      op.qkv = cases.tensor(dtype, {s.B, s.T, s.H * 3 * s.D});
      op.out = cases.tensor(dtype, {s.B, s.T, s.H * s.D});
      op.lse = cases.tensor(DType::f32, {s.B, s.H, s.T});
      if (s.slopes) op.slopes = slopes_of(cases, s.H);
      if (s.mask) op.mask = mask_of(cases, s.B, s.T);
      op.heads = s.H, op.causal = s.causal, op.scale = 1 / std::sqrt(double(s.D));
      op.dropout = s.dropout, op.seed = (int64_t(1) << 40) + 3, op.offset = 5;
      // Probabilities are rounded to the type of the values.
      double rounding = dtype == DType::bf16 ? 0x1p11 : dtype == DType::f16 ? 0x1p8 : 4;
      cases.run(op, text(s, dtype), double(std::max(s.T, s.D)), rounding);

      op.ref();  // gradients need the softmax's own out and lse
      AttentionBackward back{};
      back.dqkv = cases.tensor(dtype, {s.B, s.T, s.H * 3 * s.D});
      back.dout = cases.tensor(dtype, {s.B, s.T, s.H * s.D});
      back.qkv = op.qkv, back.out = op.out, back.lse = op.lse, back.slopes = op.slopes, back.mask = op.mask;
      back.heads = op.heads, back.causal = op.causal, back.scale = op.scale;
      back.dropout = op.dropout, back.seed = op.seed, back.offset = op.offset;
      cases.run(back, text(s, dtype), double(std::max(s.T, s.D)), rounding * 4);
    }
}

const Family family("attention", attention);

}  // namespace
}  // namespace ds::test
