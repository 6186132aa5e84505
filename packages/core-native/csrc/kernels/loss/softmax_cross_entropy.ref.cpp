#include "softmax_cross_entropy.h"

#include <cmath>

#include "../common/ref.h"

namespace ds {

void SoftmaxCrossEntropy::ref() const {
  int64_t R = logits.dim(0), V = logits.dim(1);
  check_targets();
  for (int64_t r = 0; r < R; ++r) {
    int64_t target = targets.as<int32_t>()[r];
    bool ignored = target == ignore_index;
    double largest = -INFINITY, total = 0;
    for (int64_t v = 0; v < V; ++v) largest = std::fmax(largest, get(logits, r * V + v));
    for (int64_t v = 0; v < V; ++v) total += std::exp(get(logits, r * V + v) - largest);
    put(losses, r, ignored ? 0 : largest + std::log(total) - get(logits, r * V + target));
    if (!dlogits) continue;
    for (int64_t v = 0; v < V; ++v) {
      double probability = std::exp(get(logits, r * V + v) - largest) / total;
      put(dlogits, r * V + v, ignored ? 0 : (probability - (v == target)) * scale);
    }
  }
}

}  // namespace ds
