#include "adamw.h"

#include <type_traits>

#include "../../runtime/pool.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGrain = 16384;  // elements a chunk: some 460 kB of traffic

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

// C: the dtype of the copy, void for none.
template <bool decoupled, class G, class C>
void piece(const Factors& f, float* p, float* m, float* v, const G* grad, C* copy, int64_t n) {
  for_lanes(n, [&](auto load_at, auto store_at) {
    State s = advance<decoupled>(f, {load_at(p), load_at(m), load_at(v)}, load_at(grad));
    store_at(p, s.p);
    store_at(m, s.m);
    store_at(v, s.v);
    if constexpr (!std::is_void_v<C>) store_at(copy, s.p);
  });
}

template <class G, class C>
void sweep(const AdamW& op, C* copy) {
  Factors f(op);
  parallel_ranges(op.p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    auto run = [&]<bool decoupled>() {
      C* to = copy;
      if constexpr (!std::is_void_v<C>) to += begin;
      piece<decoupled>(f, op.p.as<float>() + begin, op.m.as<float>() + begin, op.v.as<float>() + begin,
                       op.grad.as<G>() + begin, to, end - begin);
    };
    op.decoupled ? run.template operator()<true>() : run.template operator()<false>();
  });
}

}  // namespace

void adamw(const AdamW& op) {
  dispatch_float(op.grad.dtype, [&]<class G>() {
    if (!op.copy) return sweep<G>(op, static_cast<void*>(nullptr));
    dispatch_float(op.copy.dtype, [&]<class C>() { sweep<G>(op, op.copy.as<C>()); });
  });
}

}  // namespace ds::DS_ISA
