// What a launcher gets beside its op, and how the library finds launchers by the op's name.
#pragma once
#include <cstdint>

#include "guard.h"

// The stream of the library's boundary.
struct DsCudaStream {
  int device;
  cudaStream_t handle;
};

namespace ds::cuda {

// The properties of a device, asked once. Throws where there is no such device.
const DsCudaDevice& device_properties(int device);

// For raise_fault of launch.cuh.
struct FaultReport {
  DsCudaFault* fault;
  void (*describe)(const DsCudaFault*, DsCudaError*);
};

class CudaContext {
 public:
  CudaContext(const char* op, const DsCudaContext& context)
      : op_(op), context_(context), device_(device_properties(context.stream->device)) {}

  const char* op() const { return op_; }
  int device() const { return context_.stream->device; }
  cudaStream_t stream() const { return context_.stream->handle; }
  int multiprocessors() const { return device_.multiprocessors; }
  size_t shared_memory_per_block() const { return device_.shared_memory_per_block; }
  int capability() const { return device_.major * 10 + device_.minor; }

  // For a kernel that checks its data: hand it over by value. `Describe` is a lambda without captures that makes the
  // Error of the numbers which the kernel raises: [](const int64_t* numbers) { return Error(...); }.
  template <class Describe>
  FaultReport fault(Describe) const {
    return {context_.fault, [](const DsCudaFault* fault, DsCudaError* error) {
              guarded("describe a fault", error, [&] { throw Describe{}(fault->numbers); });
            }};
  }

  // Uninitialised device memory of this op, 256-byte aligned; the next op of the stream may get the same. Ask once, for
  // all that is needed. No elements, no memory.
  template <class T>
  T* scratch(int64_t count) {
    if (count == 0) return nullptr;
    if (asked_) throw Error("INTERNAL", op_, "one call of scratch", "a second", "ask once for all that is needed");
    asked_ = true;
    DsCudaError error{};
    void* data = context_.scratch(context_.owner, size_t(count) * sizeof(T), &error);
    if (!data) throw Error(error.code, op_, error.expected, error.actual, error.hint);
    return static_cast<T*>(data);
  }

 private:
  const char* op_;
  const DsCudaContext& context_;
  const DsCudaDevice& device_;
  bool asked_ = false;
};

// A launcher of this library. They form a list, built while the library is loaded.
struct Registration : DsCudaKernel {
  const Registration* next;
  inline static const Registration* first = nullptr;

  explicit Registration(DsCudaKernel kernel) : DsCudaKernel(kernel), next(first) { first = this; }
};

template <class Op, void (*launcher)(const Op&, CudaContext&)>
int launch_op(const void* op, const DsCudaContext* context, DsCudaError* error) noexcept {
  return guarded(Op::name, error, [&] {
    check(cudaSetDevice(context->stream->device), Op::name, "the device of the stream");
    CudaContext own(Op::name, *context);
    launcher(*static_cast<const Op*>(op), own);
  });
}

}  // namespace ds::cuda

// Names the launcher of an op: DS_CUDA_KERNEL(LayerNorm, layer_norm), in namespace ds::cuda, after the launcher.
#define DS_CUDA_KERNEL(Op, launcher)                           \
  static const ::ds::cuda::Registration launcher##_registered( \
      DsCudaKernel{Op::name, sizeof(Op), &::ds::cuda::launch_op<Op, &launcher>});
