#include "../common/dispatch.h"
#include "attention.h"
#include "fused_rows.cuh"

namespace ds::cuda {

void attention_backward(const AttentionBackward& op, CudaContext& context) {
  dispatch_float(op.qkv.dtype,
                 [&]<class T>() { launch_backward<false>(backward_pass<T>(op, context), BlockLists{}, context); });
}

DS_CUDA_KERNEL(AttentionBackward, attention_backward)

}  // namespace ds::cuda
