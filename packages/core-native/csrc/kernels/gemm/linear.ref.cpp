#include <cmath>

#include "../common/ref.h"
#include "linear.h"

namespace ds {

void Linear::ref() const {
  int64_t R = x.rows(), K = x.dim(-1), N = weight.dim(0);
  for (int64_t r = 0; r < R; ++r)
    for (int64_t n = 0; n < N; ++n) {
      double s = bias ? get(bias, n) : 0;
      for (int64_t k = 0; k < K; ++k) s += get(x, r * K + k) * get(weight, n * K + k);
      if (pre) put(pre, r * N + n, s);
      if (gelu) s = 0.5 * s * (1 + std::tanh(0.79788456 * s * (1 + 0.044715 * s * s)));
      put(y, r * N + n, s + (residual ? get(residual, r * N + n) : 0));
    }
}

void LinearBackwardInput::ref() const {
  int64_t R = dy.rows(), N = weight.dim(0), K = weight.dim(1);
  for (int64_t r = 0; r < R; ++r)
    for (int64_t k = 0; k < K; ++k) {
      double s = 0;
      for (int64_t n = 0; n < N; ++n) s += get(dy, r * N + n) * get(weight, n * K + k);
      put(dx, r * K + k, s, accumulate);
    }
}

void LinearBackwardWeight::ref() const {
  int64_t R = dy.rows(), N = dweight.dim(0), K = dweight.dim(1);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K; ++k) {
      double s = 0;
      for (int64_t r = 0; r < R; ++r) s += get(dy, r * N + n) * get(x, r * K + k);
      put(dweight, n * K + k, s, accumulate);
    }
    double b = 0;
    for (int64_t r = 0; r < R; ++r) b += get(dy, r * N + n);
    if (dbias) put(dbias, n, b, accumulate);
  }
}

}  // namespace ds
