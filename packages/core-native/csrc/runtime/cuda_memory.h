// A CUDA device's memory for the arenas: a reservation of address space, whose granules get memory behind them when a
// block needs them and lose it when the region is trimmed.
#pragma once
#include <vector>

#include "cuda_library.h"
#include "memory.h"

namespace ds {

class CudaSpace : public AddressSpace {
 public:
  explicit CudaSpace(int device);
  ~CudaSpace() override;
  void touch(size_t offset, size_t bytes) override;
  void give_back(size_t offset, size_t bytes) override;
  size_t committed_bytes() const { return committed_bytes_; }

 private:
  // Calls fn(offset, bytes) for each run of granules in [begin, end) that are committed, or are not.
  template <class F>
  void for_runs(size_t begin, size_t end, bool committed, F&& fn);

  const DsCudaLibrary& library_;
  int device_;
  size_t granule_, committed_bytes_ = 0;
  std::vector<bool> committed_;
};

}  // namespace ds
