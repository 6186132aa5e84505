// Which tensors of an op may share memory.
#pragma once
#include "../../runtime/tensor.h"

namespace ds {

// The bytes that two tensors share: none, all, or some.
enum class Sharing { none, all, some };

inline Sharing sharing(const Tensor& a, const Tensor& b) {
  auto bytes = [](const Tensor& t) { return t.data ? size_t(t.numel()) * dtype_bytes(t.dtype) : 0; };
  auto *p = static_cast<const char*>(a.data), *q = static_cast<const char*>(b.data);
  if (bytes(a) == 0 || bytes(b) == 0 || p >= q + bytes(b) || q >= p + bytes(a)) return Sharing::none;
  return p == q && bytes(a) == bytes(b) ? Sharing::all : Sharing::some;
}

inline bool overlap(const Tensor& a, const Tensor& b) { return sharing(a, b) != Sharing::none; }

// Addresses are known here only, so here a caller's mistake with views is found and named.
inline void refuse_overlap(const char* op, const char* a, const char* b, const char* expected) {
  throw Error("SHAPE", op, expected, std::string(a) + " and " + b + " that overlap", "copy one of them first");
}

// An op that reads and writes element by element may work in place, but not on memory shifted against its input.
inline void require_same_or_apart(const char* op, const char* a_name, const Tensor& a, const char* b_name,
                                  const Tensor& b) {
  if (sharing(a, b) == Sharing::some)
    refuse_overlap(op, a_name, b_name, "views of the same memory or of none in common");
}

inline void require_apart(const char* op, const char* a_name, const Tensor& a, const char* b_name, const Tensor& b) {
  if (overlap(a, b)) refuse_overlap(op, a_name, b_name, "memory of their own for both arguments");
}

}  // namespace ds

#define DS_REQUIRE_SAME_OR_APART(a, b) ::ds::require_same_or_apart(name, #a, a, #b, b)
#define DS_REQUIRE_APART(a, b) ::ds::require_apart(name, #a, a, #b, b)
