// Memory of a thread that a kernel keeps from call to call.
#pragma once
#include <cstddef>
#include <cstdlib>

namespace ds::DS_ISA {

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  // At least n elements, aligned to 64 bytes, holding anything. What an earlier call gave is gone.
  template <class T>
  T* take(size_t n) {
    if (n * sizeof(T) > size_) {
      std::free(data_);
      size_ = (n * sizeof(T) + 63) / 64 * 64;
      data_ = std::aligned_alloc(64, size_);
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ds::DS_ISA
