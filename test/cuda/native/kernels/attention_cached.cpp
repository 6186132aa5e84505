#include "kernels/attention/attention_cached.h"

#include "cases.h"

namespace ds::test {
namespace {

void attention_cached(Cases& cases) {
  struct Shape {
    int64_t B, T, past, H, D, S, shift = 0;
    bool slopes = true, mask = false;
  };
  // One query and several; more keys than a part; a cache that ends inside a group of 16; many queries by tiles.
  Shape shapes[] = {{1, 1, 0, 1, 8, 16},
                    {0, 1, 3, 1, 8, 16},
                    {2, 0, 3, 1, 8, 16},
                    {2, 1, 300, 2, 24, 309, 0, false},
                    {2, 5, 254, 2, 20, 270},
                    {2, 3, 13, 1, 17, 16, 1},
                    {2, 6, 40, 2, 16, 50, 0, true, true},
                    {2, 33, 50, 2, 20, 90},
                    {1, 70, 0, 1, 16, 71, 1, true, true},
                    {1, 17, 15, 1, 256, 40},
                    {1, 1, 20, 1, 300, 30}};
  for (const Shape& s : shapes)
    for (DType dtype : kFloats) {
      cases.begin(s.shift);
      AttentionCached op{};
      op.qkv = cases.tensor(dtype, {s.B, s.T, s.H * 3 * s.D});
      op.out = cases.tensor(dtype, {s.B, s.T, s.H * s.D});
      op.k_cache = cases.tensor(dtype, {s.B, s.H, s.S, s.D});
      op.v_cache = cases.tensor(dtype, {s.B, s.H, s.S, s.D});
      // What lies behind the tokens so far must not be looked at.
      for (int64_t i = 0; s.T && i < s.B * s.H; ++i)
        for (int64_t j = s.past; j < s.S; ++j)
          for (int64_t d = 0; d < s.D; ++d) {
            put(op.k_cache, i * s.S * s.D + cached_key(j, d, s.S, s.D), NAN);
            put(op.v_cache, (i * s.S + j) * s.D + d, NAN);
          }
      if (s.slopes) {
        op.slopes = Optional{cases.tensor(DType::f32, {s.H})};
        for (int64_t h = 0; h < s.H; ++h) put(op.slopes, h, std::exp2(-4.0 * double(h + 1) / double(s.H)));
      }
      if (s.mask) {
        op.mask = Optional{cases.tensor(DType::u8, {s.B, s.past + s.T + 2})};
        for (int64_t i = 0; i < op.mask.numel(); ++i) put(op.mask, i, i < op.mask.dim(1) ? i > 4 : (7 * i) % 3 > 0);
      }
      op.heads = s.H, op.past = s.past, op.scale = 1 / std::sqrt(double(s.D));
      std::string what = "B " + std::to_string(s.B) + " T " + std::to_string(s.T) + " past " + std::to_string(s.past) +
                         " D " + std::to_string(s.D) + " " + dtype_name(dtype);
      double rounding = dtype == DType::bf16 ? 0x1p11 : dtype == DType::f16 ? 0x1p8 : 4;
      cases.run(op, what, double(s.past + s.T + s.D), rounding);
    }
}

const Family family("attention_cached", attention_cached);

}  // namespace
}  // namespace ds::test
