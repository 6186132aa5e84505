#include "silu_gate.h"

#include <cmath>

#include "../common/ref.h"

namespace ds {

void SiluGate::ref() const {
  for (int64_t i = 0; i < y.numel(); ++i) put(y, i, get(gate, i) / (1 + std::exp(-get(gate, i))) * get(up, i));
}

void SiluGateBackward::ref() const {
  for (int64_t i = 0; i < dy.numel(); ++i) {
    double d = get(dy, i), x = get(gate, i), u = get(up, i), s = 1 / (1 + std::exp(-x));
    put(dgate, i, d * u * s * (1 + x * (1 - s)));
    put(dup, i, d * x * s);
  }
}

}  // namespace ds
