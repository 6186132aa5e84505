// The CUDA library: opened when somebody asks for it, so that the addon loads on machines without a driver.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "cuda_abi.h"
#include "error.h"

namespace ds {

constexpr int kMaxCudaDevices = 16;

// What was found, or why nothing was.
struct CudaLibrary {
  const DsCudaLibrary* table = nullptr;  // null: `problem` says why
  std::string path, problem;
  int devices = 0;  // 0 with a table: `problem` says why

  // Says which file `get` opens, instead of ds-core-cuda.so beside the addon. Without effect once it is open.
  static void choose(const std::string& path);
  // Opens it at the first call, for the life of the process.
  static const CudaLibrary& get();
  // Says what the emulated devices are, before the first use of one. Throws UNSUPPORTED for the real library.
  static void emulate(const DsCudaEmulation& settings);
  // The table, for device number n. Throws DEVICE, saying what is missing and what to do.
  static const DsCudaLibrary& for_device(int n);
};

inline Error cuda_error(const DsCudaError& e) { return Error(e.code, e.op, e.expected, e.actual, e.hint); }

// Calls a function of the library and throws what it reports.
template <class... Parameters, class... Arguments>
void cuda_call(int (*function)(Parameters...), Arguments... arguments) {
  DsCudaError error{};
  if (function(arguments..., &error) != 0) throw cuda_error(error);
}

// The library's kernel for an op. Throws UNSUPPORTED when there is none, or one of another build.
template <class Op>
const DsCudaKernel& cuda_kernel() {
  static const DsCudaKernel* kernel = CudaLibrary::get().table->find_kernel(Op::name);
  if (!kernel)
    throw Error("UNSUPPORTED", Op::name, "an op with a CUDA kernel", "one without in " + CudaLibrary::get().path,
                "run it on the device 'cpu'");
  if (kernel->op_bytes != sizeof(Op))
    throw Error("INTERNAL", Op::name, "a CUDA library of this build", "another in " + CudaLibrary::get().path,
                "build both again: npm run build");
  return *kernel;
}

}  // namespace ds
