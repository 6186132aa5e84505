#include "elementwise.h"

#include <cmath>

#include "../common/gelu.h"
#include "../common/ref.h"

namespace ds {

void ScaleAdd::ref() const {
  for (int64_t i = 0; i < out.numel(); ++i) put(out, i, alpha * get(a, i) + beta * get(b, i));
}

void Copy::ref() const {
  for (int64_t i = 0; i < out.numel(); ++i) put(out, i, factor * get(x, i));
}

void Fill::ref() const {
  for (int64_t i = 0; i < out.numel(); ++i) put(out, i, value);
}

void Gelu::ref() const {
  for (int64_t i = 0; i < y.numel(); ++i) {
    double z = get(x, i);
    put(y, i, z / 2 * (1 + std::tanh(kGeluRate * z * (1 + kGeluCubic * z * z))));
  }
}

void GeluBackward::ref() const {
  for (int64_t i = 0; i < dx.numel(); ++i) {
    double z = get(x, i);
    double t = std::tanh(kGeluRate * z * (1 + kGeluCubic * z * z));
    double slope = (1 + t) / 2 + z / 2 * (1 - t * t) * kGeluRate * (1 + 3 * kGeluCubic * z * z);
    put(dx, i, get(dy, i) * slope);
  }
}

}  // namespace ds
