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

// A copy of this many elements is written past the caches: by the end of the pass nothing of it would be left there,
// and a plain store would first read the line that it overwrites.
constexpr int64_t kStreamElements = 1 << 20;

#if defined(__AVX2__)
inline void stream(bf16* p, Vec v) {
  bf16 buffer[kLanes];
  store(buffer, v);
#if defined(__AVX512F__)
  __m256i bits;
  std::memcpy(&bits, buffer, sizeof bits);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), bits);
#else
  __m128i bits;
  std::memcpy(&bits, buffer, sizeof bits);
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), bits);
#endif
}
inline bool can_stream(const void* p) { return reinterpret_cast<uintptr_t>(p) % (kLanes * sizeof(bf16)) == 0; }
inline void finish_stream() { _mm_sfence(); }
#else
inline void stream(bf16* p, Vec v) { store(p, v); }
inline bool can_stream(const void*) { return false; }
inline void finish_stream() {}
#endif

// C: the dtype of the copy, void for none.
template <bool decoupled, bool streamed, class G, class C>
void piece(const Factors& f, float* p, float* m, float* v, const G* grad, C* copy, int64_t n) {
  int64_t i = 0;
  if constexpr (streamed) {
    for (; i + kLanes <= n; i += kLanes) {
      State s = advance<decoupled>(f, {load(p + i), load(m + i), load(v + i)}, load(grad + i));
      store(p + i, s.p);
      store(m + i, s.m);
      store(v + i, s.v);
      stream(copy + i, s.p);
    }
    finish_stream();
  }
  for_lanes(n - i, [&](auto load_at, auto store_at) {
    State s = advance<decoupled>(f, {load_at(p + i), load_at(m + i), load_at(v + i)}, load_at(grad + i));
    store_at(p + i, s.p);
    store_at(m + i, s.m);
    store_at(v + i, s.v);
    if constexpr (!std::is_void_v<C>) store_at(copy + i, s.p);
  });
}

template <class G, class C>
void sweep(const AdamW& op, C* copy) {
  Factors f(op);
  // Not over the gradient, whose lines are in the cache already.
  bool streamed = op.p.numel() >= kStreamElements && can_stream(copy) && op.copy.data != op.grad.data;
  parallel_ranges(op.p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    auto run = [&]<bool decoupled, bool streamed>() {
      C* to = copy;
      if constexpr (!std::is_void_v<C>) to += begin;
      piece<decoupled, streamed>(f, op.p.as<float>() + begin, op.m.as<float>() + begin, op.v.as<float>() + begin,
                                 op.grad.as<G>() + begin, to, end - begin);
    };
    if constexpr (std::is_same_v<C, bf16>)
      if (streamed)
        return op.decoupled ? run.template operator()<true, true>() : run.template operator()<false, true>();
    op.decoupled ? run.template operator()<true, false>() : run.template operator()<false, false>();
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
