#include "silu_gate.h"

#include "../../runtime/pool.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGrain = 8192;  // elements a chunk: the exponential makes them dearer than a plain pass

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace

void silu_gate(const SiluGate& op) {
  dispatch_float(op.gate.dtype, [&]<class T>() {
    parallel_ranges(op.y.numel(), kGrain, [&](int64_t begin, int64_t end) {
      T* y = op.y.as<T>() + begin;
      const T *gate = op.gate.as<T>() + begin, *up = op.up.as<T>() + begin;
      for_lanes(end - begin, [&](auto load_at, auto store_at) {
        Vec x = load_at(gate);
        store_at(y, x * sigmoid(x) * load_at(up));
      });
    });
  });
}

void silu_gate_backward(const SiluGateBackward& op) {
  dispatch_float(op.gate.dtype, [&]<class T>() {
    parallel_ranges(op.dy.numel(), kGrain, [&](int64_t begin, int64_t end) {
      T *dgate = op.dgate.as<T>() + begin, *dup = op.dup.as<T>() + begin;
      const T *dy = op.dy.as<T>() + begin, *gate = op.gate.as<T>() + begin, *up = op.up.as<T>() + begin;
      for_lanes(end - begin, [&](auto load_at, auto store_at) {
        Vec d = load_at(dy), x = load_at(gate), u = load_at(up), s = sigmoid(x), silu = x * s;
        store_at(dgate, d * u * (s + silu * (1.0f - s)));
        store_at(dup, d * silu);
      });
    });
  });
}

}  // namespace ds::DS_ISA
