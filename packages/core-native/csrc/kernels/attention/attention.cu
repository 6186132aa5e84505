#include "attention.h"

#include "../common/dispatch.h"
#include "fused_rows.cuh"

namespace ds::cuda {

void attention(const Attention& op, CudaContext& context) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { launch_forward<Keys::rows>(forward_pass<T>(op, context), context); });
}

DS_CUDA_KERNEL(Attention, attention)

}  // namespace ds::cuda
