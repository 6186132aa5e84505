#include <cmath>

#include "../common/ref.h"
#include "layer_norm.h"

namespace ds {

void LayerNorm::ref() const {
  int64_t R = x.rows(), C = x.dim(-1);
  for (int64_t r = 0; r < R; ++r) {
    auto s = [&](int64_t c) { return get(sum ? sum : x, r * C + c); };
    if (sum)
      for (int64_t c = 0; c < C; ++c) put(sum, r * C + c, get(x, r * C + c) + get(residual, r * C + c));
    double m = 0, variance = 0;
    for (int64_t c = 0; c < C; ++c) m += s(c) / C;
    for (int64_t c = 0; c < C; ++c) variance += (s(c) - m) * (s(c) - m) / C;
    double k = 1 / std::sqrt(variance + eps);
    for (int64_t c = 0; c < C; ++c) put(y, r * C + c, (s(c) - m) * k * get(weight, c) + get(bias, c));
    put(mean, r, m);
    put(rstd, r, k);
  }
}

void LayerNormBackward::ref() const {
  int64_t R = s.rows(), C = s.dim(-1);
  auto n = [&](int64_t r, int64_t c) { return (get(s, r * C + c) - get(mean, r)) * get(rstd, r); };
  for (int64_t c = 0; c < C; ++c) {
    double dw = 0, db = 0;
    for (int64_t r = 0; r < R; ++r) {
      dw += get(dy, r * C + c) * n(r, c);
      db += get(dy, r * C + c);
    }
    put(dweight, c, dw, accumulate);
    put(dbias, c, db, accumulate);
  }
  for (int64_t r = 0; r < R; ++r) {
    double mean_g = 0, mean_gn = 0;
    auto g = [&](int64_t c) { return get(dy, r * C + c) * get(weight, c); };
    for (int64_t c = 0; c < C; ++c) {
      mean_g += g(c) / C;
      mean_gn += g(c) * n(r, c) / C;
    }
    for (int64_t c = 0; c < C; ++c) {
      double d = get(rstd, r) * (g(c) - mean_g - n(r, c) * mean_gn);
      put(dx, r * C + c, d + (dsum ? get(dsum, r * C + c) : 0));
    }
  }
}

}  // namespace ds
