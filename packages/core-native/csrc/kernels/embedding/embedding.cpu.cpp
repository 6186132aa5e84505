#include "embedding.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../../runtime/pool.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kChunkBytes = 65536;
constexpr int64_t kColumns = 512;  // a sum of one row and this many columns stays in the first-level cache

int64_t rows_per_chunk(int64_t row_bytes) {
  return std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(row_bytes, 1));
}

struct Occurrence {
  int32_t id;
  int32_t position;
};

// Sorts by id, equal ids by position: counting sorts over 11 bits of the id, the lowest first.
std::vector<Occurrence> sorted_occurrences(const Tensor& ids, int64_t V) {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  size_t R = size_t(ids.numel());
  std::vector<Occurrence> from(R), to(R);
  for (size_t r = 0; r < R; ++r) from[r] = {ids.as<int32_t>()[r], int32_t(r)};
  for (int shift = 0; shift < 31 && ((V - 1) >> shift) > 0; shift += kBits) {
    size_t start[kBuckets + 1] = {};
    auto bucket = [&](const Occurrence& o) { return size_t(o.id >> shift) & (kBuckets - 1); };
    for (auto& o : from) ++start[bucket(o) + 1];
    for (int b = 0; b < kBuckets; ++b) start[b + 1] += start[b];
    for (auto& o : from) to[start[bucket(o)]++] = o;
    from.swap(to);
  }
  return from;
}

// Zeroes the rows in [begin, end) that no id names.
void clear_unnamed(const Tensor& dtable, const std::vector<Occurrence>& sorted, int64_t begin, int64_t end) {
  size_t row_bytes = size_t(dtable.dim(1)) * dtype_bytes(dtable.dtype);
  auto clear = [&](int64_t from, int64_t to) {
    if (from < to) std::memset(dtable.as<char>() + size_t(from) * row_bytes, 0, size_t(to - from) * row_bytes);
  };
  auto next = std::lower_bound(sorted.begin(), sorted.end(), begin, [](auto& o, int64_t v) { return o.id < v; });
  int64_t row = begin;
  for (; next != sorted.end() && next->id < end; ++next) {
    clear(row, next->id);
    row = next->id + 1;
  }
  clear(row, end);
}

// Adds up dy over the positions [first, last), which all name one id, for the columns [c, c + n).
template <class T, class G>
void sum_run(const EmbeddingBackward& op, const Occurrence* first, const Occurrence* last, int64_t c, int64_t n) {
  int64_t C = op.dtable.dim(1);
  float sums[kColumns];
  std::fill_n(sums, n, 0.0f);
  for (auto* o = first; o != last; ++o) {
    const T* dy = op.dy.as<T>() + o->position * C + c;
    for_lanes(n, [&](auto load_at, auto store_at) { store_at(sums, load_at(sums) + load_at(dy)); });
  }
  G* d = op.dtable.as<G>() + first->id * C + c;
  for_lanes(n, [&](auto load_at, auto store_at) {
    Vec total = load_at(static_cast<const float*>(sums));
    store_at(d, op.accumulate ? load_at(d) + total : total);
  });
}

template <class T, class G>
void sum_runs(const EmbeddingBackward& op, const std::vector<Occurrence>& sorted) {
  int64_t R = int64_t(sorted.size()), C = op.dtable.dim(1);
  int64_t row_chunk = rows_per_chunk(std::min(C, kColumns) * 4), row_chunks = (R + row_chunk - 1) / row_chunk;
  int64_t column_chunks = (C + kColumns - 1) / kColumns;
  parallel_for(row_chunks * column_chunks, [&](int64_t chunk) {
    int64_t begin = chunk / column_chunks * row_chunk, end = std::min(R, begin + row_chunk);
    int64_t c = chunk % column_chunks * kColumns, n = std::min(kColumns, C - c);
    // A run belongs to the chunk in which it begins, whole.
    while (begin < end && begin > 0 && sorted[size_t(begin)].id == sorted[size_t(begin - 1)].id) ++begin;
    while (begin < end) {
      int64_t last = begin + 1;
      while (last < R && sorted[size_t(last)].id == sorted[size_t(begin)].id) ++last;
      sum_run<T, G>(op, &sorted[size_t(begin)], sorted.data() + last, c, n);
      begin = last;
    }
  });
}

}  // namespace

void embedding(const Embedding& op) {
  int64_t R = op.ids.numel(), V = op.table.dim(0);
  int64_t row_bytes = op.table.dim(1) * int64_t(dtype_bytes(op.table.dtype));
  check_ids(op.name, op.ids, V);
  if (row_bytes == 0) return;
  parallel_ranges(R, rows_per_chunk(row_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::memcpy(op.y.as<char>() + r * row_bytes, op.table.as<char>() + op.ids.as<int32_t>()[r] * row_bytes,
                  size_t(row_bytes));
  });
}

void embedding_backward(const EmbeddingBackward& op) {
  int64_t V = op.dtable.dim(0), C = op.dtable.dim(1);
  check_ids(op.name, op.ids, V);
  if (V == 0 || C == 0) return;
  auto sorted = sorted_occurrences(op.ids, V);
  if (!op.accumulate) {
    int64_t row_bytes = C * int64_t(dtype_bytes(op.dtable.dtype));
    parallel_ranges(V, 16 * rows_per_chunk(row_bytes),
                    [&](int64_t begin, int64_t end) { clear_unnamed(op.dtable, sorted, begin, end); });
  }
  dispatch_float(op.dy.dtype,
                 [&]<class T>() { dispatch_float(op.dtable.dtype, [&]<class G>() { sum_runs<T, G>(op, sorted); }); });
}

}  // namespace ds::DS_ISA
