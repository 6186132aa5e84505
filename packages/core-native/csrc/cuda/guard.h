// Errors of the CUDA half: runtime codes become ds::Error, and ds::Error becomes fields at the library's boundary.
#pragma once
#include <cstdio>
#include <exception>

#include "../runtime/cuda_abi.h"
#include "../runtime/error.h"
#ifdef DS_CUDA_EMU
#include "emulation/runtime.h"
#else
#include <cuda_runtime.h>
#endif

namespace ds::cuda {

// Throws what went wrong, in the name of `op` (a static string: it may outlive the call).
inline void check(cudaError_t status, const char* op, const char* expected) {
  if (status == cudaSuccess) return;
  bool memory = status == cudaErrorMemoryAllocation;
  throw Error(memory ? "OOM" : "DEVICE", op, expected,
              std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status),
              memory ? "use a smaller batch, a higher ZeRO stage, or a device with more memory"
                     : "an earlier op of the stream may be the cause: run with DS_SYNC=1 to see which");
}

inline void fill(DsCudaError* to, const Error& from) {
  auto put = [](auto& field, const std::string& text) { std::snprintf(field, sizeof field, "%s", text.c_str()); };
  put(to->code, from.code);
  put(to->op, from.op);
  put(to->expected, from.expected);
  put(to->actual, from.actual);
  put(to->hint, from.hint);
}

// Runs body and gives 0, or 1 with *error filled.
template <class Body>
int guarded(const char* op, DsCudaError* error, Body&& body) noexcept {
  try {
    body();
    return 0;
  } catch (const Error& e) {
    fill(error, e);
  } catch (const std::exception& e) {
    fill(error, Error("INTERNAL", op, "no such error", e.what(), "please report it"));
  }
  return 1;
}

}  // namespace ds::cuda
