#include "kernels/optim/lamb.h"

#include "cases.h"

namespace ds::test {
namespace {

void lamb(Cases& cases) {
  for (int64_t n : kSizes)
    for (int64_t shift : {0, 1})
      for (DType dtype : kFloats) {
        std::string what = "[" + std::to_string(n) + "] + " + std::to_string(shift) + dtype_name(dtype);
        for (bool accumulate : {false, true}) {
          cases.begin(shift);
          LambMoments op{};
          op.p = cases.tensor(DType::f32, {n});
          op.m = cases.tensor(DType::f32, {n}, 0, 0.01);
          op.v = cases.tensor(DType::f32, {n}, 0.01, 0.001);
          op.grad = cases.tensor(dtype, {n}, 0, 0.1);
          op.squares = cases.tensor(DType::f64, {2}, 100, 1);
          op.beta1 = 0.9, op.beta2 = 0.999, op.eps = 1e-8, op.weight_decay = 0.1, op.grad_scale = 0.3;
          op.accumulate = accumulate;
          cases.run(op, what + (accumulate ? " accumulate" : ""), 4, 4);
        }
        // A ratio between the bounds, at each of them, and norms of 0.
        for (double ratio : {2.0, 100.0, 1e-3, 0.0})
          for (bool copy : {false, true}) {
            cases.begin(shift);
            LambStep op{};
            op.p = cases.tensor(DType::f32, {n});
            op.m = cases.tensor(DType::f32, {n}, 0, 0.01);
            op.v = cases.tensor(DType::f32, {n}, 0.01, 0.001);
            if (copy) static_cast<Tensor&>(op.copy) = cases.tensor(dtype, {n});
            op.squares = cases.tensor(DType::f64, {2});
            put(op.squares, 0, ratio * ratio * 7), put(op.squares, 1, 7);
            op.rate = 1e-2, op.eps = 1e-8, op.weight_decay = 0.1, op.min_coefficient = 0.01, op.max_coefficient = 10;
            cases.run(op, what + " ratio " + std::to_string(ratio) + (copy ? " copy" : ""), 4, 4);
          }
      }
}

const Family family("lamb", lamb);

}  // namespace
}  // namespace ds::test
