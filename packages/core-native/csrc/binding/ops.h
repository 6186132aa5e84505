// The table of ops: one row each. Adding an op is one include and one row here, and its twin in src/binding.ts.
#pragma once
#include "../kernels/attention/attention.h"
#include "../kernels/attention/attention_cached.h"
#include "../kernels/attention/block_matmul.h"
#include "../kernels/attention/block_softmax.h"
#include "../kernels/attention/paged_attention.h"
#include "../kernels/attention/paged_write.h"
#include "../kernels/attention/sparse_attention.h"
#include "../kernels/elementwise/dropout.h"
#include "../kernels/elementwise/elementwise.h"
#include "../kernels/elementwise/silu_gate.h"
#include "../kernels/embedding/embedding.h"
#include "../kernels/gemm/linear.h"
#include "../kernels/gemm/packed_linear.h"
#include "../kernels/init/fill_normal.h"
#include "../kernels/loss/softmax_cross_entropy.h"
#include "../kernels/norm/layer_norm.h"
#include "../kernels/norm/rms_norm.h"
#include "../kernels/optim/adamw.h"
#include "../kernels/optim/lamb.h"
#include "../kernels/optim/lion.h"
#include "../kernels/reduce/reduce.h"
#include "op.h"

namespace ds::binding {

using Ops = OpTable<          //
    ScaleAdd,                 //
    Copy,                     //
    Fill,                     //
    FillNormal,               //
    Gelu,                     //
    GeluBackward,             //
    SiluGate,                 //
    SiluGateBackward,         //
    Dropout,                  //
    Embedding,                //
    EmbeddingBackward,        //
    SoftmaxCrossEntropy,      //
    Sum,                      //
    SquareSum,                //
    NonfiniteIndex,           //
    Argmax,                   //
    AdamW,                    //
    LambMoments,              //
    LambStep,                 //
    Lion,                     //
    Linear,                   //
    LinearBackwardInput,      //
    LinearBackwardWeight,     //
    PackWeight,               //
    PackedRows,               //
    PackedLinear,             //
    PackedArgmax,             //
    LayerNorm,                //
    LayerNormBackward,        //
    RmsNorm,                  //
    RmsNormBackward,          //
    Attention,                //
    AttentionBackward,        //
    AttentionCached,          //
    PagedWrite,               //
    PagedAttention,           //
    SparseAttention,          //
    SparseAttentionBackward,  //
    BlockSdd,                 //
    BlockDsd,                 //
    BlockDds,                 //
    BlockSoftmax,             //
    BlockSoftmaxBackward>;

}  // namespace ds::binding
