// The language of our kernels beyond CUDA's own: launches and shared memory, for nvcc and for the emulation.
//
//   DS_LAUNCH(kernel, grid, block, shared_bytes, context, arguments...)   on the context's stream, checked. A template
//     needs all its arguments, and parentheses round them: DS_LAUNCH((forward<T, W>), ...).
//   DS_SHARED(type, name)        shared memory of a fixed size: DS_SHARED(float[32], partial)
//   DS_DYN_SHARED(type, name)    pointer to the launch's shared_bytes, 16-byte aligned; one a kernel
//
// Both kinds hold garbage until written (the emulation fills them with NaN). Blocks are whole warps.
#pragma once
#include <type_traits>

#include "context.h"
#ifdef DS_CUDA_EMU
#include "emulation/language.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace ds::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr size_t kSharedWithoutAsking = 48 << 10;

#ifdef DS_CUDA_EMU
#define DS_SHARED(type, name)        \
  static const char name##_site = 0; \
  auto& name = *static_cast<std::type_identity_t<type>*>(::ds::emulation::shared(&name##_site, sizeof(type)))
#define DS_DYN_SHARED(type, name) type* name = static_cast<type*>(::ds::emulation::dynamic_shared())
#else
#define DS_SHARED(type, name) __shared__ std::type_identity_t<type> name
#define DS_DYN_SHARED(type, name)                                    \
  extern __shared__ __align__(16) unsigned char ds_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(ds_dynamic_shared)
#endif

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            const CudaContext& context, Arguments... arguments) {
#ifdef DS_CUDA_EMU
  check(emulation::launch({name, grid, block, shared_bytes}, context.stream(),
                          [kernel, ... values = static_cast<Parameters>(arguments)] { kernel(values...); }),
        context.op(), name);
#else
  if (shared_bytes > kSharedWithoutAsking)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)), context.op(),
          name);
  kernel<<<grid, block, shared_bytes, context.stream()>>>(static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), context.op(), name);
#endif
}

#define DS_LAUNCH(kernel, grid, block, shared_bytes, context, ...) \
  ::ds::cuda::launch("a launch of " #kernel, kernel, grid, block, shared_bytes, context, __VA_ARGS__)

// Says what is wrong with the data. The stream goes on, so nothing may depend on the bad value; the addon's next join
// fails with what the report's `describe` makes of the numbers, unless another fault was first.
__device__ inline void raise_fault(const FaultReport& report, int64_t a, int64_t b = 0, int64_t c = 0, int64_t d = 0) {
  if (atomicCAS(&report.fault->raised, 0u, 1u) != 0) return;
  report.fault->describe = report.describe;
  report.fault->numbers[0] = a, report.fault->numbers[1] = b;
  report.fault->numbers[2] = c, report.fault->numbers[3] = d;
}

// Blocks for work of `items`, `per_block` at a time, when the kernel strides over what is left: enough to fill the
// device `waves` times over, never more than there is work. 0 for no work: then launch nothing.
inline unsigned strided_blocks(int64_t items, int64_t per_block, const CudaContext& context, int waves = 16) {
  int64_t needed = (items + per_block - 1) / per_block, full = int64_t(context.multiprocessors()) * waves;
  return unsigned(needed < full ? needed : full);
}

}  // namespace ds::cuda
