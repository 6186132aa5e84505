#include "lion.h"

#include "../common/ref.h"

namespace ds {

void Lion::ref() const {
  for (int64_t i = 0; i < p.numel(); ++i) {
    double g = get(grad, i) * grad_scale, c = beta1 * get(m, i) + (1 - beta1) * g;
    double sign = c > 0 ? 1 : c < 0 ? -1 : c;  // NaN stays NaN
    double weight = get(p, i) * (1 - lr * weight_decay) - lr * sign;
    put(p, i, weight);
    put(m, i, beta2 * get(m, i) + (1 - beta2) * g);
    if (copy) put(copy, i, weight);
  }
}

}  // namespace ds
