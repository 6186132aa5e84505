// What a kernel sees of a tensor: where it is, what it holds, how large it is. Never owns memory.
#pragma once
#include <cstdint>
#include <string>

#include "dtype.h"
#include "error.h"

namespace ds {

constexpr int kMaxRank = 6;

// Contiguous, row major. `data` is null for an absent optional argument, for an empty tensor and on the null device.
struct Tensor {
  void* data = nullptr;
  int64_t dims[kMaxRank] = {0, 0, 0, 0, 0, 0};
  uint8_t rank = 0;
  DType dtype = DType::f32;
  bool present = false;

  explicit operator bool() const { return present; }
  int64_t dim(int i) const { return dims[i < 0 ? i + rank : i]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  // Rows when the last dim is taken as the row: [..., C] -> R.
  int64_t rows() const { return rank == 0 || dims[rank - 1] == 0 ? 0 : numel() / dims[rank - 1]; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

inline std::string shape_text(const Tensor& t) {
  std::string s = "[";
  for (int i = 0; i < t.rank; ++i) s += (i ? ", " : "") + std::to_string(t.dims[i]);
  return s + "] " + dtype_name(t.dtype);
}

// Memory safety at the door of a kernel; meaning was checked in TypeScript, so a failure here is our own bug.
inline void require(bool ok, const char* op, const char* condition) {
  if (!ok)
    throw Error("SHAPE", op, condition, "arguments that break it",
                "this is checked before the native call: please report it");
}
#define DS_REQUIRE(condition) ::ds::require((condition), name, #condition)

}  // namespace ds
