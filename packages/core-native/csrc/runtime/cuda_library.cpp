#include "cuda_library.h"

#include <dlfcn.h>

#include <algorithm>

namespace ds {
namespace {

std::string beside_the_addon() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&beside_the_addon), &info) || !info.dli_fname) return "ds-core-cuda.so";
  std::string path = info.dli_fname;
  size_t slash = path.rfind('/');
  return (slash == std::string::npos ? "" : path.substr(0, slash + 1)) + "ds-core-cuda.so";
}

std::string& chosen_path() {
  static std::string path;
  return path;
}

void count_devices(CudaLibrary& library) {
  DsCudaError error{};
  if (library.table->device_count(&library.devices, &error) != 0)
    library.problem = std::string(error.expected) + ": " + error.actual;
  else if (library.devices == 0)
    library.problem = "no NVIDIA driver, or no GPU that it offers";
  library.devices = std::min(library.devices, kMaxCudaDevices);
}

CudaLibrary open() {
  CudaLibrary found;
  found.path = chosen_path().empty() ? beside_the_addon() : chosen_path();
  void* handle = dlopen(found.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    found.problem = dlerror();
    return found;
  }
  auto function = reinterpret_cast<DsCudaLibraryFunction>(dlsym(handle, "ds_cuda_library"));
  const DsCudaLibrary* table = function ? function() : nullptr;
  if (!table || table->version != kDsCudaAbiVersion) {
    found.problem = found.path + " is not a CUDA library of this build (version " +
                    std::to_string(table ? table->version : 0) + ", wanted " + std::to_string(kDsCudaAbiVersion) + ")";
    return found;
  }
  found.table = table;
  count_devices(found);
  return found;
}

CudaLibrary& opened() {
  static CudaLibrary library = open();
  return library;
}

}  // namespace

void CudaLibrary::choose(const std::string& path) { chosen_path() = path; }

const CudaLibrary& CudaLibrary::get() { return opened(); }

void CudaLibrary::emulate(const DsCudaEmulation& settings) {
  CudaLibrary& library = opened();
  if (!library.table || !library.table->emulate)
    throw Error("UNSUPPORTED", "cuda_emulate", "the emulated CUDA library", library.path, "");
  cuda_call(library.table->emulate, &settings);
  count_devices(library);
}

const DsCudaLibrary& CudaLibrary::for_device(int n) {
  const CudaLibrary& library = get();
  if (n < library.devices) return *library.table;
  throw Error("DEVICE", "device", "a CUDA device",
              "cuda:" + std::to_string(n) + " where there are " + std::to_string(library.devices) +
                  (library.problem.empty() ? "" : " (" + library.problem + ")"),
              "use the device 'cpu'; `ds doctor` says what was looked for");
}

}  // namespace ds
