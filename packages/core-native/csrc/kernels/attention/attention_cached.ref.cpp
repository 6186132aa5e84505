#include <cmath>
#include <vector>

#include "../common/ref.h"
#include "attention_cached.h"

namespace ds {

void AttentionCached::ref() const {
  int64_t B = qkv.dim(0), T = qkv.dim(1), H = heads, D = qkv.dim(2) / (3 * H), S = k_cache.dim(2);
  std::vector<double> weight(size_t(past + T), 0.0);
  std::vector<int64_t> position(size_t(past + T), 0);
  auto at = [&](int64_t b, int64_t t, int64_t h, int64_t which, int64_t d) {
    return (((b * T + t) * H + h) * 3 + which) * D + d;
  };
  for (int64_t b = 0; b < B; ++b) {
    auto is_real = [&](int64_t j) { return !mask || get(mask, b * mask.dim(1) + j) != 0; };
    for (int64_t j = 0, real = 0; j < past + T; ++j) {
      real += is_real(j);
      position[size_t(j)] = real > 0 ? real - 1 : 0;
    }
    for (int64_t h = 0; h < H; ++h) {
      int64_t head = (b * H + h) * S * D;
      for (int64_t t = 0; t < T; ++t)
        for (int64_t d = 0; d < D; ++d) {
          put(k_cache, head + cached_key(past + t, d, S, D), get(qkv, at(b, t, h, 1, d)));
          put(v_cache, head + (past + t) * D + d, get(qkv, at(b, t, h, 2, d)));
        }
      double slope = slopes ? get(slopes, h) : 0;
      for (int64_t t = 0; t < T; ++t) {
        double largest = -INFINITY, total = 0;
        for (int64_t j = 0; j <= past + t; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < D; ++d)
            dot += get(qkv, at(b, t, h, 0, d)) * get(k_cache, head + cached_key(j, d, S, D));
          double distance = double(position[size_t(j)] - position[size_t(past + t)]);
          weight[size_t(j)] = is_real(j) ? scale * dot + slope * distance : -INFINITY;
          largest = std::fmax(largest, weight[size_t(j)]);
        }
        for (int64_t j = 0; j <= past + t; ++j) {
          weight[size_t(j)] = is_real(j) ? std::exp(weight[size_t(j)] - largest) : 0;
          total += weight[size_t(j)];
        }
        for (int64_t d = 0; d < D; ++d) {
          double sum = 0;
          for (int64_t j = 0; j <= past + t; ++j)
            if (is_real(j)) sum += weight[size_t(j)] * get(v_cache, head + j * D + d);
          put(out, ((b * T + t) * H + h) * D + d, total > 0 ? sum / total : 0);
        }
      }
    }
  }
}

}  // namespace ds
