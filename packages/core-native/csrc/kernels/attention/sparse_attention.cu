#include "sparse_attention.h"

#include "../common/dispatch.h"
#include "check_layout.cuh"
#include "fused_rows.cuh"

namespace ds::cuda {

void sparse_attention(const SparseAttention& op, CudaContext& context) {
  check_layout(op.layout, context);
  dispatch_float(op.qkv.dtype, [&]<class T>() {
    auto pass = forward_pass<T>(op, context);
    pass.lists = by_rows(op.layout);
    launch_forward<Keys::listed>(pass, context);
  });
}

DS_CUDA_KERNEL(SparseAttention, sparse_attention)

}  // namespace ds::cuda
