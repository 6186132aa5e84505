#include "adamw.h"

#include "sweep.h"

namespace ds::DS_ISA {
namespace {

struct Factors {
  Vec grad_scale, decay, l2, beta1, rest1, beta2, rest2, step, root, eps;

  explicit Factors(const AdamW& op)
      : grad_scale(splat(float(op.grad_scale))),
        decay(splat(float(op.decoupled ? 1 - op.lr * op.weight_decay : 1))),
        l2(splat(float(op.weight_decay))),
        beta1(splat(float(op.beta1))),
        rest1(splat(float(1 - op.beta1))),
        beta2(splat(float(op.beta2))),
        rest2(splat(float(1 - op.beta2))),
        step(splat(float(-op.lr / op.bias_correction1))),
        root(splat(float(1 / std::sqrt(op.bias_correction2)))),
        eps(splat(float(op.eps))) {}
};

struct State {
  Vec p, m, v;
};

template <bool decoupled>
inline State advance(const Factors& f, State s, Vec g) {
  g *= f.grad_scale;
  if constexpr (!decoupled) g = fma(f.l2, s.p, g);
  s.m = fma(f.beta1, s.m, f.rest1 * g);
  s.v = fma(f.beta2, s.v, (f.rest2 * g) * g);
  if constexpr (decoupled) s.p *= f.decay;
  s.p = fma(f.step, s.m / fma(sqrt(s.v), f.root, f.eps), s.p);
  return s;
}

template <bool decoupled, class G>
void run(const AdamW& op) {
  Factors f(op);
  float *p = op.p.as<float>(), *m = op.m.as<float>(), *v = op.v.as<float>();
  const G* grad = op.grad.as<G>();
  sweep(op.p.numel(), op.copy, op.grad, [=](auto load_at, auto store_at) {
    State s = advance<decoupled>(f, {load_at(p), load_at(m), load_at(v)}, load_at(grad));
    store_at(p, s.p);
    store_at(m, s.m);
    store_at(v, s.v);
    return s.p;
  });
}

}  // namespace

void adamw(const AdamW& op) {
  dispatch_float(op.grad.dtype, [&]<class G>() { op.decoupled ? run<true, G>(op) : run<false, G>(op); });
}

}  // namespace ds::DS_ISA
