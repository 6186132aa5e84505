#include "embedding.h"

#include <vector>

#include "../common/ref.h"

namespace ds {

void Embedding::ref() const {
  int64_t R = ids.numel(), V = table.dim(0), C = table.dim(1);
  check_ids(name, ids, V);
  for (int64_t r = 0; r < R; ++r)
    for (int64_t c = 0; c < C; ++c) put(y, r * C + c, get(table, ids.as<int32_t>()[r] * C + c));
}

void EmbeddingBackward::ref() const {
  int64_t R = ids.numel(), V = dtable.dim(0), C = dtable.dim(1);
  check_ids(name, ids, V);
  std::vector<double> sums(size_t(V * C), 0.0);
  std::vector<bool> named(size_t(V), false);
  for (int64_t r = 0; r < R; ++r) {
    int64_t v = ids.as<int32_t>()[r];
    named[size_t(v)] = true;
    for (int64_t c = 0; c < C; ++c) sums[size_t(v * C + c)] += get(dy, r * C + c);
  }
  for (int64_t v = 0; v < V; ++v) {
    if (accumulate && !named[size_t(v)]) continue;
    for (int64_t c = 0; c < C; ++c) put(dtable, v * C + c, sums[size_t(v * C + c)], accumulate);
  }
}

}  // namespace ds
