#include "kernels/optim/adamw.h"

#include "cases.h"

namespace ds::test {
namespace {

void adamw(Cases& cases) {
  for (int64_t n : {0, 1, 3, 4, 1037, 70001})
    for (int64_t shift : {0, 1})
      for (DType grad : kFloats)
        for (int copy = -1; copy < 3; ++copy)
          for (bool decoupled : {false, true}) {
            cases.begin(shift);
            AdamW op{};
            op.p = cases.tensor(DType::f32, {n});
            op.m = cases.tensor(DType::f32, {n}, 0, 0.1);
            op.v = cases.tensor(DType::f32, {n}, 0.1, 0.01);
            if (copy >= 0) static_cast<Tensor&>(op.copy) = cases.tensor(kFloats[copy], {n});
            op.grad = cases.tensor(grad, {n});
            op.lr = 0.1, op.beta1 = 0.9, op.beta2 = 0.99, op.eps = 1e-3, op.weight_decay = 0.2;
            op.bias_correction1 = 1 - 0.81, op.bias_correction2 = 1 - 0.99 * 0.99, op.grad_scale = 0.5;
            op.decoupled = decoupled;
            std::string what = shape_text(op.grad) + " + " + std::to_string(shift) + ", copy " +
                               (copy < 0 ? "none" : dtype_name(kFloats[copy])) + (decoupled ? "" : ", L2");
            // A gradient that is not finite spoils its own element only.
            if (n > 8) put(op.grad, 2, INFINITY), put(op.grad, 5, NAN);
            cases.run(op, what, 4, 4);
            if (copy < 0 || kFloats[copy] != grad) continue;
            static_cast<Tensor&>(op.copy) = op.grad;
            cases.run(op, what + " over the gradient", 4, 4);
          }
}

const Family family("adamw", adamw);

}  // namespace
}  // namespace ds::test
