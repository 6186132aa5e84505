#include "lion.h"

#include "sweep.h"

namespace ds::DS_ISA {
namespace {

struct Factors {
  Vec grad_scale, decay, beta1, rest1, beta2, rest2, step;

  explicit Factors(const Lion& op)
      : grad_scale(splat(float(op.grad_scale))),
        decay(splat(float(1 - op.lr * op.weight_decay))),
        beta1(splat(float(op.beta1))),
        rest1(splat(float(1 - op.beta1))),
        beta2(splat(float(op.beta2))),
        rest2(splat(float(1 - op.beta2))),
        step(splat(float(-op.lr))) {}
};

// A zero and a NaN are their own signs.
inline Vec sign(Vec c) { return select(c > 0.0f, splat(1.0f), select(c < 0.0f, splat(-1.0f), c)); }

}  // namespace

void lion(const Lion& op) {
  dispatch_float(op.grad.dtype, [&]<class G>() {
    Factors f(op);
    float *p = op.p.as<float>(), *m = op.m.as<float>();
    const G* grad = op.grad.as<G>();
    sweep(op.p.numel(), op.copy, op.grad, [=](auto load_at, auto store_at) {
      Vec g = load_at(grad) * f.grad_scale, moment = load_at(m);
      Vec weight = fma(f.step, sign(fma(f.beta1, moment, f.rest1 * g)), load_at(p) * f.decay);
      store_at(p, weight);
      store_at(m, fma(f.beta2, moment, f.rest2 * g));
      return weight;
    });
  });
}

}  // namespace ds::DS_ISA
