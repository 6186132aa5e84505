#include "cuda_memory.h"

namespace ds {

CudaSpace::CudaSpace(int device) : library_(CudaLibrary::for_device(device)), device_(device) {
  DsCudaDevice info;
  cuda_call(library_.device, device, &info);
  granule_ = info.granule;
  // Address space only: twice the device's memory, so that no order of sizes can run into the end first.
  bytes_ = info.total_memory * 2 / granule_ * granule_;
  void* base = nullptr;
  cuda_call(library_.reserve, device, bytes_, &base);
  base_ = static_cast<char*>(base);
  committed_.resize(bytes_ / granule_);
}

CudaSpace::~CudaSpace() {
  DsCudaError ignored;  // nobody is left to hear of it
  for_runs(0, committed_.size(), true,
           [&](size_t offset, size_t bytes) { library_.decommit(device_, base_ + offset, bytes, &ignored); });
  library_.unreserve(device_, base_, bytes_, &ignored);
}

template <class F>
void CudaSpace::for_runs(size_t begin, size_t end, bool committed, F&& fn) {
  while (begin < end) {
    size_t run = begin;
    while (run < end && committed_[run] == committed) ++run;
    if (run > begin) fn(begin * granule_, (run - begin) * granule_);
    begin = run + (run < end);
  }
}

void CudaSpace::touch(size_t offset, size_t bytes) {
  for_runs(offset / granule_, (offset + bytes + granule_ - 1) / granule_, false, [&](size_t from, size_t size) {
    // One at a time: a commit that fails half-way would leave unknown granules committed.
    for (size_t at = from; at < from + size; at += granule_) {
      cuda_call(library_.commit, device_, static_cast<void*>(base_ + at), granule_);
      committed_[at / granule_] = true;
      committed_bytes_ += granule_;
    }
  });
}

void CudaSpace::give_back(size_t offset, size_t bytes) {
  for_runs((offset + granule_ - 1) / granule_, (offset + bytes) / granule_, true, [&](size_t from, size_t size) {
    cuda_call(library_.decommit, device_, static_cast<void*>(base_ + from), size);
    for (size_t at = from; at < from + size; at += granule_) committed_[at / granule_] = false;
    committed_bytes_ -= size;
  });
}

}  // namespace ds
