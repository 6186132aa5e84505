#include "paged_write.h"

#include <cmath>
#include <vector>

#include "../common/ref.h"

namespace ds {
namespace {

using Row = std::vector<double>;

// x: the heads of a row side by side.
void norm(Row& x, const Tensor& weight, double eps) {
  size_t n = size_t(weight.numel());
  for (size_t first = 0; first < x.size(); first += n) {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) squares += x[first + i] * x[first + i] / double(n);
    for (size_t i = 0; i < n; ++i) x[first + i] *= get(weight, int64_t(i)) / std::sqrt(squares + eps);
  }
}

void rotate(const PagedWrite& op, Row& x, int64_t position) {
  int64_t D = op.kv.size(), half = op.half();
  for (int64_t first = 0; first < int64_t(x.size()); first += D)
    for (int64_t d = 0; d < half; ++d) {
      double &a = x[size_t(first + (op.interleaved ? 2 * d : d))],
             &b = x[size_t(first + (op.interleaved ? 2 * d + 1 : d + half))];
      double c = get(op.table, position * 2 * half + d), s = get(op.table, position * 2 * half + half + d), old = a;
      a = old * c - b * s;
      b = b * c + old * s;
    }
}

// Writes element d of a head to at(d), bytes with their scale.
template <class At>
void write(const Tensor& to, const Tensor& scales, int64_t scale_at, const double* x, int64_t D, At&& at) {
  if (!scales.present) {
    for (int64_t d = 0; d < D; ++d) put(to, at(d), x[d]);
    return;
  }
  double largest = 0;
  for (int64_t d = 0; d < D; ++d) largest = std::isfinite(x[d]) ? std::fmax(largest, std::fabs(x[d])) : INFINITY;
  // In f32, as the contract says: halves between two bytes are common.
  double scale = largest < kLeastHeadMagnitude ? 0 : largest / 127;
  float factor = scale == 0 || !std::isfinite(scale) ? 0 : 127 / float(largest);
  put(scales, scale_at, scale);
  for (int64_t d = 0; d < D; ++d) {
    float byte = factor == 0 ? 0 : std::nearbyint(float(x[d]) * factor);
    put(to, at(d), double(uint8_t(int8_t(byte))));
  }
}

}  // namespace

void PagedWrite::ref() const {
  validate();
  int64_t H = heads, G = kv.heads(), D = kv.size(), page = kv.page();
  for (int64_t s = 0; s < rows.sequences(); ++s)
    for (int64_t r = rows.start(s); r < rows.start(s + 1); ++r) {
      int64_t position = rows.past_of(s) + r - rows.start(s), next = r * (H + 2 * G) * D;
      auto take = [&](int64_t n) {
        Row x(size_t(n * D));
        for (double& element : x) element = get(qkv, next++);
        return x;
      };
      Row query = take(H), key = take(G), value = take(G);
      if (query_norm) norm(query, query_norm, eps);
      if (key_norm) norm(key, key_norm, eps);
      if (table) rotate(*this, query, position), rotate(*this, key, position);
      for (int64_t i = 0; i < H * D; ++i) put(q, r * H * D + i, query[size_t(i)]);
      int64_t id = rows.table_of(s)[position / page], slot = position % page;
      for (int64_t g = 0; g < G; ++g) {
        write(kv.keys, kv.key_scales, kv.scale_at(id, g, slot), &key[size_t(g * D)], D,
              [&](int64_t d) { return kv.key_at(id, g, slot, d); });
        write(kv.values, kv.value_scales, kv.scale_at(id, g, slot), &value[size_t(g * D)], D,
              [&](int64_t d) { return kv.value_at(id, g, slot, d); });
      }
    }
}

}  // namespace ds
