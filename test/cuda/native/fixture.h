// What the tests of the emulation share: counted expectations, and a stream of an emulated device.
#pragma once
#include <cstdio>
#include <string>

#include "cuda/context.h"

extern "C" const DsCudaLibrary* ds_cuda_library();

namespace ds::cuda {

inline int passed = 0, failed = 0;

inline void expect(bool ok, const std::string& what, const std::string& got = "") {
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAILED %s%s%s\n", what.c_str(), got.empty() ? "" : ": ", got.c_str());
}

// A stream and the context of an op on it.
struct Fixture {
  const DsCudaLibrary& library = *ds_cuda_library();
  DsCudaError error{};
  DsCudaStream* stream = nullptr;
  DsCudaFault fault{};
  DsCudaContext context{};

  explicit Fixture(uint64_t order = 0) {
    DsCudaEmulation settings{2, 2, size_t(64) << 20, order};
    library.emulate(&settings, &error);
    library.stream_create(0, &stream, &error);
    context.stream = stream;
    context.fault = &fault;
  }
  ~Fixture() { library.stream_destroy(stream, &error); }
  CudaContext op() { return CudaContext("test", context); }
  // Empty, or what the stream reports.
  std::string join() { return library.stream_synchronize(stream, &error) ? error.actual : ""; }
};

void test_streams_and_memory();  // emulated_runtime.cu

}  // namespace ds::cuda
