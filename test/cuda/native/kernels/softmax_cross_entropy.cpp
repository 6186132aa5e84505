#include "kernels/loss/softmax_cross_entropy.h"

#include "cases.h"

namespace ds::test {
namespace {

// Tensors at `shift`, every fifth row ignored; the first and the last class occur.
SoftmaxCrossEntropy draw(Cases& cases, int64_t R, int64_t V, int64_t shift, DType dtype, bool gradient) {
  cases.begin(shift);
  SoftmaxCrossEntropy op{};
  op.losses = cases.tensor(DType::f32, {R});
  if (gradient) static_cast<Tensor&>(op.dlogits) = cases.tensor(dtype, {R, V});
  op.logits = cases.tensor(dtype, {R, V}, 0, 4);
  op.targets = cases.tensor(DType::i32, {R});
  for (int64_t r = 0; r < R; ++r)
    op.targets.as<int32_t>()[r] = int32_t(r % 5 == 4 ? -7 : r * (V - 1) / std::max<int64_t>(R - 1, 1));
  op.ignore_index = -7;
  op.scale = 0.25;
  return op;
}

void softmax_cross_entropy(Cases& cases) {
  struct Shape {
    int64_t R, V;
  };
  // One segment and several, by rows and by segments; rows that begin at any element; more rows than blocks.
  Shape shapes[] = {{0, 9},    {1, 1},    {6, 7},     {3, 64},    {70, 40},  {2, 8192},
                    {2, 8200}, {3, 8193}, {9, 16400}, {9, 33000}, {2, 40001}};
  for (auto [R, V] : shapes)
    for (int64_t shift : {0, 1})
      for (DType dtype : kFloats)
        for (bool gradient : {false, true}) {
          auto op = draw(cases, R, V, shift, dtype, gradient);
          std::string what = shape_text(op.logits) + " + " + std::to_string(shift);
          cases.run(op, what + (gradient ? " with its gradient" : ""), 16, 2);
          if (!gradient) continue;
          static_cast<Tensor&>(op.dlogits) = op.logits;
          cases.run(op, what + " in place", 16, 2);
          // A logit of probability 0, and rows that are NaN; the others must not notice.
          if (R < 3) continue;
          op = draw(cases, R, V, shift, dtype, true);
          put(op.logits, V + V - 1, NAN);
          put(op.logits, 2 * V + V / 3, INFINITY);
          // More of them than a segment has, and not the last class.
          for (int64_t v = 1; v < V - 1; ++v) put(op.logits, v, -INFINITY);
          op.targets.as<int32_t>()[0] = 0;
          cases.run(op, what + " not finite", 16, 2);
        }
  for (int64_t V : {9, 20000}) {
    auto op = draw(cases, 4, V, 0, DType::bf16, true);
    op.targets.as<int32_t>()[2] = int32_t(V);
    cases.refuse(op, std::to_string(V) + " at position 2");
    op.targets.as<int32_t>()[2] = -1;
    cases.refuse(op, "-1 at position 2");
  }
}

const Family family("softmax_cross_entropy", softmax_cross_entropy);

}  // namespace
}  // namespace ds::test
