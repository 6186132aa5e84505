#include "paged_attention.h"

#include <cmath>
#include <vector>

#include "../common/ref.h"

namespace ds {
namespace {

double element(const Tensor& pages, int64_t at, const Tensor& scales, int64_t scale_at) {
  double x = get(pages, at);
  return scales.present ? double(int8_t(uint8_t(x))) * get(scales, scale_at) : x;
}

}  // namespace

void PagedAttention::ref() const {
  validate();
  int64_t H = heads, G = kv.heads(), D = kv.size(), page = kv.page();
  std::vector<double> weight;
  for (int64_t s = 0; s < rows.sequences(); ++s)
    for (int64_t r = rows.start(s); r < rows.start(s + 1); ++r)
      for (int64_t h = 0; h < H; ++h) {
        int64_t i = rows.past_of(s) + r - rows.start(s), g = h / (H / G), from = std::max<int64_t>(0, i - back());
        auto id = [&](int64_t j) { return int64_t(rows.table_of(s)[j / page]); };
        auto scale_of = [&](int64_t j) { return kv.scale_at(id(j), g, j % page); };
        double largest = -INFINITY, total = 0, slope = slopes ? get(slopes, h) : 0;
        weight.assign(size_t(i + 1), 0.0);
        for (int64_t j = from; j <= i; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < D; ++d)
            dot += get(q, (r * H + h) * D + d) *
                   element(kv.keys, kv.key_at(id(j), g, j % page, d), kv.key_scales, scale_of(j));
          weight[size_t(j)] = scale * dot + slope * double(j - i);
          largest = std::fmax(largest, weight[size_t(j)]);
        }
        for (int64_t j = from; j <= i; ++j) {
          weight[size_t(j)] = std::exp(weight[size_t(j)] - largest);
          total += weight[size_t(j)];
        }
        for (int64_t d = 0; d < D; ++d) {
          double sum = 0;
          for (int64_t j = from; j <= i; ++j)
            sum += weight[size_t(j)] *
                   element(kv.values, kv.value_at(id(j), g, j % page, d), kv.value_scales, scale_of(j));
          put(out, (r * H + h) * D + d, sum / total);
        }
      }
}

}  // namespace ds
