#include "adamw.h"

#include <cmath>

#include "../common/ref.h"

namespace ds {

void AdamW::ref() const {
  for (int64_t i = 0; i < p.numel(); ++i) {
    double weight = get(p, i), g = get(grad, i) * grad_scale;
    if (!decoupled) g += weight_decay * weight;
    double first = beta1 * get(m, i) + (1 - beta1) * g;
    double second = beta2 * get(v, i) + (1 - beta2) * g * g;
    if (decoupled) weight *= 1 - lr * weight_decay;
    weight -= lr / bias_correction1 * first / (std::sqrt(second) / std::sqrt(bias_correction2) + eps);
    put(p, i, weight);
    put(m, i, first);
    put(v, i, second);
    if (copy) put(copy, i, weight);
  }
}

}  // namespace ds
