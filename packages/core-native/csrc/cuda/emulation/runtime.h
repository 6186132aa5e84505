// The CUDA runtime of the emulation: NVIDIA's own declarations, with our definitions in runtime.cpp
// and memory.cpp.
//
// A stream runs nothing until somebody waits for it, or for an event of it: work that is read too early, or that
// another stream did not wait for, is seen as missing every time and not once in a thousand runs.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <functional>

#include "../../runtime/cuda_abi.h"

namespace ds::emulation {

struct Launch {
  const char* kernel;
  dim3 grid, block;
  size_t shared_bytes;
};

// Queues a kernel; `thread` is what each of its threads does.
cudaError_t launch(const Launch& launch, cudaStream_t stream, std::function<void()> thread);

// Runs the grid to its end, on the caller and more threads. Throws ds::Error for what a kernel did wrong.
void run_grid(const Launch& launch, const std::function<void()>& thread);

constexpr size_t kSharedBytes = 227 << 10;  // a block's, as on compute capability 9.0

constexpr int kMaxDevices = 16;

void configure(const DsCudaEmulation& settings);
const DsCudaEmulation& settings();

}  // namespace ds::emulation

// For other libraries that stand in for NVIDIA's and queue work on emulated streams, as the tests' NCCL does.
extern "C" {
// Queues work that is done once `step` gives something else than 0; whoever waits for the stream calls it until then.
// `drop` ends `state`.
int ds_emulated_enqueue(void* stream, int (*step)(void* state), void (*drop)(void* state), void* state);
// The device of a stream; of the calling thread for null.
int ds_emulated_device(void* stream);
}
