#include "kernels/reduce/reduce.h"

#include "cases.h"

namespace ds::test {
namespace {

template <class Op>
void sums(Cases& cases, int64_t n, int64_t shift, DType dtype) {
  for (bool accumulate : {false, true}) {
    cases.begin(shift);
    Op op{cases.tensor(DType::f64, {1}), cases.tensor(dtype, {n}, 0.5), accumulate};
    cases.run(op, shape_text(op.x) + " + " + std::to_string(shift), 1e-6, double(n) * 1e-6);
    if (n == 0) continue;
    put(op.x, n / 2, -INFINITY);
    cases.run(op, shape_text(op.x) + " with an infinity", 1, 1);
  }
}

void nonfinite(Cases& cases, int64_t n, int64_t shift, DType dtype) {
  cases.begin(shift);
  NonfiniteIndex op{cases.tensor(DType::f64, {1}), cases.tensor(dtype, {n})};
  cases.run(op, shape_text(op.x) + ", none", 1, 1, true);
  for (int64_t at : {n - 1, n - 2, n / 2, int64_t(0)}) {
    if (at < 0 || n == 0) continue;
    put(op.x, at, at % 2 ? NAN : -INFINITY);
    cases.run(op, shape_text(op.x) + " at " + std::to_string(at), 1, 1, true);
  }
}

void argmax(Cases& cases, int64_t R, int64_t V, int64_t shift, DType dtype) {
  cases.begin(shift);
  Argmax op{cases.tensor(DType::i32, {R}), cases.tensor(dtype, {R, V})};
  std::string what = shape_text(op.x) + " + " + std::to_string(shift);
  cases.run(op, what, 1, 1, true);
  // Whole numbers have equals; a zero of either sign is one of them.
  for (int64_t i = 0; i < R * V; ++i) {
    double whole = std::round(get(op.x, i));
    put(op.x, i, whole < 0 ? whole : i % 2 ? 0.0 : -0.0);
  }
  cases.run(op, what + ", ties", 1, 1, true);
  for (int64_t r = 0; r < R; ++r) {
    put(op.x, r * V + V - 1, NAN);
    put(op.x, r * V + V / 3, r % 2 ? -NAN : INFINITY);
  }
  cases.run(op, what + ", NaN", 1, 1, true);
  for (int64_t i = 0; i < R * V; ++i) put(op.x, i, -INFINITY);
  cases.run(op, what + ", all -inf", 1, 1, true);
}

void reduce(Cases& cases) {
  for (DType dtype : kFloats)
    for (int64_t shift : {0, 1, 3}) {
      // More chunks than the emulated device takes blocks: it must stride.
      for (int64_t n : {0, 1, 7, 8, 2049, 16384, 16385, 70001, 1100000}) {
        if (n > 1000000 && shift != (dtype == DType::f32 ? 0 : 1)) continue;
        sums<Sum>(cases, n, shift, dtype);
        sums<SquareSum>(cases, n, shift, dtype);
        nonfinite(cases, n, shift, dtype);
      }
      struct Shape {
        int64_t R, V;
      };
      for (auto [R, V] :
           {Shape{0, 5}, {1, 1}, {9, 7}, {5, 64}, {700, 8}, {3, 1024}, {90, 1032}, {3, 16385}, {2, 40000}})
        argmax(cases, R, V, shift, dtype);
    }
}

const Family family("reduce", reduce);

}  // namespace
}  // namespace ds::test
