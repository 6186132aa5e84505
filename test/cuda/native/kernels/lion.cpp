#include "kernels/optim/lion.h"

#include "cases.h"

namespace ds::test {
namespace {

// p, m, the copy and the gradient; every seventh direction has no sign.
void lion(Cases& cases) {
  for (int64_t n : kSizes)
    for (int64_t shift : {0, 1})
      for (DType grad : kFloats)
        for (int copy = 0; copy <= 3; ++copy) {
          cases.begin(shift);
          Lion op{};
          op.p = cases.tensor(DType::f32, {n});
          op.m = cases.tensor(DType::f32, {n}, 0, 0.01);
          if (copy > 0) static_cast<Tensor&>(op.copy) = cases.tensor(kFloats[copy - 1], {n});
          op.grad = cases.tensor(grad, {n}, 0, 0.1);
          for (int64_t i = 3; i < n; i += 7) put(op.m, i, 0), put(op.grad, i, 0);
          op.lr = 1e-2, op.beta1 = 0.9, op.beta2 = 0.99, op.weight_decay = 0.1, op.grad_scale = 0.3;
          std::string what = "[" + std::to_string(n) + "] + " + std::to_string(shift) + dtype_name(grad);
          cases.run(op, what + " copy " + std::to_string(copy), 2, 4);
          if (copy > 0 && kFloats[copy - 1] == grad) {
            static_cast<Tensor&>(op.copy) = op.grad;
            op.copy.present = true;
            cases.run(op, what + " copy over the gradient", 2, 4);
          }
        }
}

const Family family("lion", lion);

}  // namespace
}  // namespace ds::test
