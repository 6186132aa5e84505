#include "lamb.h"

#include "../common/ref.h"
#include "lamb_trust.h"

namespace ds {
namespace {

double direction(const Tensor& p, const Tensor& m, const Tensor& v, int64_t i, double eps, double weight_decay) {
  return get(m, i) / (std::sqrt(get(v, i)) + eps) + weight_decay * get(p, i);
}

}  // namespace

void LambMoments::ref() const {
  double weights = 0, directions = 0;
  for (int64_t i = 0; i < p.numel(); ++i) {
    double g = get(grad, i) * grad_scale;
    put(m, i, beta1 * get(m, i) + (1 - beta1) * g);
    put(v, i, beta2 * get(v, i) + (1 - beta2) * g * g);
    double u = direction(p, m, v, i, eps, weight_decay);
    weights += get(p, i) * get(p, i);
    directions += u * u;
  }
  put(squares, 0, weights, accumulate);
  put(squares, 1, directions, accumulate);
}

void LambStep::ref() const {
  double trust = lamb_trust(squares.as<double>(), min_coefficient, max_coefficient);
  for (int64_t i = 0; i < p.numel(); ++i) {
    double weight = get(p, i) - rate * trust * direction(p, m, v, i, eps, weight_decay);
    put(p, i, weight);
    if (copy) put(copy, i, weight);
  }
}

}  // namespace ds
