// Which tensors of an op may share memory.
#pragma once
#include "../../runtime/tensor.h"

namespace ds {

// Whether two tensors share memory without being the same bytes: an elementwise op on such a pair would read what it
// has already overwritten.
inline bool overlap_partly(const Tensor& a, const Tensor& b) {
  if (!a.data || !b.data) return false;
  auto bytes = [](const Tensor& t) { return size_t(t.numel()) * dtype_bytes(t.dtype); };
  auto *p = static_cast<const char*>(a.data), *q = static_cast<const char*>(b.data);
  bool same = p == q && bytes(a) == bytes(b);
  return !same && p < q + bytes(b) && q < p + bytes(a);
}

inline bool overlap(const Tensor& a, const Tensor& b) {
  return overlap_partly(a, b) || (a.data && a.data == b.data && a.numel() > 0 && b.numel() > 0);
}

}  // namespace ds
