// Device memory of the emulation, as the driver's virtual memory functions give it out: address space that faults until
// it is mapped.
#include <sys/mman.h>

#include <map>
#include <mutex>
#include <string>

#include "runtime.h"

using namespace ds::emulation;

namespace {

struct Allocation {
  size_t bytes, device;
  int users;  // its handle and its mapping
};

std::mutex memory_mutex;
std::map<CUmemGenericAllocationHandle, Allocation> allocations;
std::map<CUdeviceptr, CUmemGenericAllocationHandle> mapped;  // by the start of the mapping
CUmemGenericAllocationHandle last_handle = 0;

size_t used(size_t device) {
  size_t bytes = 0;
  for (auto& [handle, allocation] : allocations) bytes += allocation.device == device ? allocation.bytes : 0;
  return bytes;
}

void drop(CUmemGenericAllocationHandle handle) {
  if (--allocations.at(handle).users == 0) allocations.erase(handle);
}

CUresult address_reserve(CUdeviceptr* base, size_t bytes, size_t, CUdeviceptr, unsigned long long) {
  void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  *base = reinterpret_cast<CUdeviceptr>(p);
  return p == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

CUresult address_free(CUdeviceptr base, size_t bytes) {
  std::lock_guard lock(memory_mutex);
  auto inside = mapped.lower_bound(base);
  if (inside != mapped.end() && inside->first < base + bytes) return CUDA_ERROR_INVALID_VALUE;
  return munmap(reinterpret_cast<void*>(base), bytes) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult create(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp* prop,
                unsigned long long) {
  std::lock_guard lock(memory_mutex);
  size_t device = size_t(prop->location.id);
  if (used(device) + bytes > settings().total_memory) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = ++last_handle;
  allocations[*handle] = {bytes, device, 1};
  return CUDA_SUCCESS;
}

CUresult release(CUmemGenericAllocationHandle handle) {
  std::lock_guard lock(memory_mutex);
  drop(handle);
  return CUDA_SUCCESS;
}

CUresult map(CUdeviceptr at, size_t bytes, size_t, CUmemGenericAllocationHandle handle, unsigned long long) {
  std::lock_guard lock(memory_mutex);
  auto& allocation = allocations.at(handle);
  if (bytes != allocation.bytes || !mapped.emplace(at, handle).second) return CUDA_ERROR_INVALID_VALUE;
  ++allocation.users;
  return CUDA_SUCCESS;
}

CUresult set_access(CUdeviceptr at, size_t bytes, const CUmemAccessDesc*, size_t) {
  return mprotect(reinterpret_cast<void*>(at), bytes, PROT_READ | PROT_WRITE) ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult unmap(CUdeviceptr at, size_t bytes) {
  std::lock_guard lock(memory_mutex);
  for (CUdeviceptr p = at; p < at + bytes;) {
    auto found = mapped.find(p);
    if (found == mapped.end()) return CUDA_ERROR_INVALID_VALUE;
    p += allocations.at(found->second).bytes;
    drop(found->second);
    mapped.erase(found);
  }
  void* again = mmap(reinterpret_cast<void*>(at), bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return again == MAP_FAILED ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult granularity(size_t* bytes, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
  *bytes = 2 << 20;
  return CUDA_SUCCESS;
}

CUresult error_string(CUresult error, const char** text) {
  *text = error == CUDA_ERROR_OUT_OF_MEMORY ? "out of memory" : "invalid value";
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  int device = 0;
  cudaGetDevice(&device);
  std::lock_guard lock(memory_mutex);
  *total = settings().total_memory;
  *free = *total - used(size_t(device));
  return cudaSuccess;
}

extern "C" cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned,
                                                        unsigned long long, cudaDriverEntryPointQueryResult* status) {
  static const std::map<std::string, void*> functions{
      {"cuMemAddressReserve", reinterpret_cast<void*>(&address_reserve)},
      {"cuMemAddressFree", reinterpret_cast<void*>(&address_free)},
      {"cuMemCreate", reinterpret_cast<void*>(&create)},
      {"cuMemRelease", reinterpret_cast<void*>(&release)},
      {"cuMemMap", reinterpret_cast<void*>(&map)},
      {"cuMemSetAccess", reinterpret_cast<void*>(&set_access)},
      {"cuMemUnmap", reinterpret_cast<void*>(&unmap)},
      {"cuMemGetAllocationGranularity", reinterpret_cast<void*>(&granularity)},
      {"cuGetErrorString", reinterpret_cast<void*>(&error_string)},
  };
  auto found = functions.find(symbol);
  *function = found == functions.end() ? nullptr : found->second;
  if (status) *status = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
