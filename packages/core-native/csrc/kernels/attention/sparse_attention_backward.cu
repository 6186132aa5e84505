#include "../common/dispatch.h"
#include "check_layout.cuh"
#include "fused_rows.cuh"

namespace ds::cuda {

void sparse_attention_backward(const SparseAttentionBackward& op, CudaContext& context) {
  check_layout(op.layout, context);
  dispatch_float(op.qkv.dtype, [&]<class T>() {
    auto pass = backward_pass<T>(op, context);
    pass.lists = by_rows(op.layout);
    launch_backward<true>(pass, by_columns(op.layout), context);
  });
}

DS_CUDA_KERNEL(SparseAttentionBackward, sparse_attention_backward)

}  // namespace ds::cuda
