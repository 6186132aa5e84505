#include "kernels/elementwise/elementwise.h"

#include "cases.h"

namespace ds::test {
namespace {

void elementwise(Cases& cases) {
  for (int64_t n : kSizes)
    for (int64_t shift : {0, 1, 3}) {
      std::string at = "[" + std::to_string(n) + "] + " + std::to_string(shift);
      for (DType a : kFloats) {
        for (DType b : kFloats) {
          cases.begin(shift);
          ScaleAdd op{cases.tensor(a, {n}), cases.tensor(a, {n}), cases.tensor(b, {n}), 0.3, -1.7};
          cases.run(op, at + dtype_name(a) + dtype_name(b), 2, 8);
          op.out = op.a;
          cases.run(op, at + " in place", 2, 8);
        }
        cases.begin(shift);
        Gelu gelu{cases.tensor(a, {n}), cases.tensor(a, {n}, 0, 3)};
        cases.run(gelu, at + dtype_name(a), 16);
        cases.begin(shift);
        GeluBackward backward{cases.tensor(a, {n}), cases.tensor(a, {n}), cases.tensor(a, {n}, 0, 3)};
        cases.run(backward, at + dtype_name(a), 16, 4);
      }
      DType all[] = {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8};
      for (DType out : all) {
        for (DType x : all) {
          bool whole = out == DType::i32 || out == DType::u8;
          if (whole && x != out) continue;
          for (double factor : {1.0, -0.7}) {
            if (whole && factor != 1) continue;
            cases.begin(shift);
            Copy op{cases.tensor(out, {n}), cases.tensor(x, {n}, 0, x == DType::i32 ? 1e8 : 1), factor};
            // One rounding, of the exact value: the same bits, but for the product in f32.
            cases.run(op, at + dtype_name(out) + dtype_name(x), 1, 4, factor == 1);
          }
        }
        cases.begin(shift);
        cases.run(Fill{cases.tensor(out, {n}), out == DType::u8 ? 7 : -3.25}, at + dtype_name(out), 1, 1, true);
      }
    }
}

const Family family("elementwise", elementwise);

}  // namespace
}  // namespace ds::test
