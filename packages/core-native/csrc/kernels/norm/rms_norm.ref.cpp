#include "rms_norm.h"

#include <cmath>

#include "../common/ref.h"

namespace ds {

void RmsNorm::ref() const {
  int64_t R = x.rows(), C = x.dim(-1);
  for (int64_t r = 0; r < R; ++r) {
    auto s = [&](int64_t c) { return get(sum ? sum : x, r * C + c); };
    if (sum)
      for (int64_t c = 0; c < C; ++c) put(sum, r * C + c, get(x, r * C + c) + get(residual, r * C + c));
    double squares = 0;
    for (int64_t c = 0; c < C; ++c) squares += s(c) * s(c) / C;
    double k = 1 / std::sqrt(squares + eps);
    for (int64_t c = 0; c < C; ++c) put(y, r * C + c, s(c) * k * get(weight, c));
    put(rstd, r, k);
  }
}

void RmsNormBackward::ref() const {
  int64_t R = s.rows(), C = s.dim(-1);
  auto n = [&](int64_t r, int64_t c) { return get(s, r * C + c) * get(rstd, r); };
  for (int64_t c = 0; c < C; ++c) {
    double dw = 0;
    for (int64_t r = 0; r < R; ++r) dw += get(dy, r * C + c) * n(r, c);
    put(dweight, c, dw, accumulate);
  }
  for (int64_t r = 0; r < R; ++r) {
    double mean_gn = 0;
    auto g = [&](int64_t c) { return get(dy, r * C + c) * get(weight, c); };
    for (int64_t c = 0; c < C; ++c) mean_gn += g(c) * n(r, c) / C;
    for (int64_t c = 0; c < C; ++c) {
      double d = get(rstd, r) * (g(c) - n(r, c) * mean_gn);
      put(dx, r * C + c, d + (dsum ? get(dsum, r * C + c) : 0));
    }
  }
}

}  // namespace ds
