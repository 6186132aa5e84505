#include "reduce.h"

#include <cmath>

#include "../common/ref.h"

namespace ds {

void Sum::ref() const {
  double total = 0;
  for (int64_t i = 0; i < x.numel(); ++i) total += get(x, i);
  put(out, 0, total, accumulate);
}

void SquareSum::ref() const {
  double total = 0;
  for (int64_t i = 0; i < x.numel(); ++i) total += get(x, i) * get(x, i);
  put(out, 0, total, accumulate);
}

void NonfiniteIndex::ref() const {
  int64_t i = 0, n = x.numel();
  while (i < n && std::isfinite(get(x, i))) ++i;
  put(out, 0, i < n ? double(i) : -1);
}

void Argmax::ref() const {
  int64_t R = x.rows(), V = x.dim(-1);
  for (int64_t r = 0; r < R; ++r) {
    int64_t best = 0;
    for (int64_t v = 1; v < V; ++v) {
      double candidate = get(x, r * V + v), leader = get(x, r * V + best);
      if (candidate > leader || (std::isnan(candidate) && !std::isnan(leader))) best = v;
    }
    out.as<int32_t>()[r] = int32_t(best);
  }
}

}  // namespace ds
