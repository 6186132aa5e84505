// Products by NVIDIA's cuBLASLt, opened at run time: the half of its ABI that we use, in our own words, so that neither
// building nor running needs it. Facts from the cuBLAS documentation, "Using the cuBLASLt API", versions 12 and 13.
//
// Its matrices are stored by columns. Our C [M, N] = A B by rows is its D [N, M] = B^T A^T by columns, so its first
// factor is our B, its rows are our N, and its bias, one a row of D, is ours.
#pragma once
#include <cstddef>

#include "../runtime/dtype.h"
#include "context.h"

namespace ds::cuda {

// `stride` elements from one stored row to the next; `transposed`: stored [columns, rows].
struct CublasLtMatrix {
  void* data;
  DType dtype;
  int64_t stride;
  bool transposed;
};

// D [M, N] = A B + added + bias. A and B of one dtype; D of that or f32; sums in f32, never TF32. Every address and
// every stored row starts at a multiple of 16 bytes.
struct CublasLtProduct {
  int64_t M, N, K;
  CublasLtMatrix a, b, d;
  const void* bias;   // [N], dtype of D, or null
  const void* added;  // [M, N], dtype and stride of D, or null; may be D
};

// The library's choice for products of one kind, kept for the life of the process.
struct CublasLtPlan;

constexpr size_t kCublasLtWorkspace = size_t(32) << 20;  // NVIDIA's advice for an H100

// Whether a product should go to cuBLASLt, which this opens if so: `large` decides where the choice is automatic.
// Throws where it was asked for and isn't found.
bool cublaslt_wanted(bool large);

// Null where the library has no kernel for it, which it may; an error where it alone was asked for.
CublasLtPlan* cublaslt_plan(const CublasLtProduct& product, CudaContext& context);

// Queues the product. `workspace`: kCublasLtWorkspace bytes, 256-byte aligned.
void cublaslt_run(CublasLtPlan& plan, const CublasLtProduct& product, void* workspace, CudaContext& context);

// For the library's table: see cuda_abi.h.
void configure_gemm(const DsCudaGemm& settings);
std::string describe_gemm();

// cuBLASLt's ABI. Numbers are checked against NVIDIA's header by test/cuda/native/cublaslt_header.cpp where there is
// one.
namespace lt {

using Handle = struct HandleContents*;
using Operation = struct OperationContents*;    // cublasLtMatmulDesc_t
using Layout = struct LayoutContents*;          // cublasLtMatrixLayout_t
using Preference = struct PreferenceContents*;  // cublasLtMatmulPreference_t

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

constexpr int kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kNotSupported = 15;  // cublasStatus_t
constexpr int kF32 = 0, kF16 = 2, kBf16 = 14;                                            // cudaDataType_t
constexpr int kComputeF32 = 68;                                                          // cublasComputeType_t
constexpr int32_t kAsStored = 0, kTransposed = 1;                                        // cublasOperation_t
constexpr int kTransposeA = 3, kTransposeB = 4, kEpilogue = 7, kBiasPointer = 8;         // of a product
constexpr uint32_t kNoEpilogue = 1, kAddBias = 4;                                        // cublasLtEpilogue_t
constexpr int kMaxWorkspace = 1, kReductions = 3;                                        // of a preference
constexpr int kAlignmentA = 5, kAlignmentB = 6, kAlignmentC = 7, kAlignmentD = 8;        // of a preference
constexpr uint32_t kReduceInComputeType = 2;                                             // cublasLtReductionScheme_t

struct Functions {
  size_t (*get_version)();
  int (*create)(Handle*);
  int (*operation_create)(Operation*, int compute, int scale_type);
  int (*operation_set)(Operation, int attribute, const void* value, size_t bytes);
  int (*layout_create)(Layout*, int type, uint64_t rows, uint64_t columns, int64_t stride);
  int (*preference_create)(Preference*);
  int (*preference_destroy)(Preference);
  int (*preference_set)(Preference, int attribute, const void* value, size_t bytes);
  int (*heuristic)(Handle, Operation, Layout a, Layout b, Layout c, Layout d, Preference, int wanted,
                   Heuristic* results, int* found);
  int (*matmul)(Handle, Operation, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta,
                const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace, size_t bytes, cudaStream_t);
};

// Calls fn(name, pointer) for each function.
void for_functions(Functions& f, auto&& fn) {
  fn("cublasLtGetVersion", f.get_version);
  fn("cublasLtCreate", f.create);
  fn("cublasLtMatmulDescCreate", f.operation_create);
  fn("cublasLtMatmulDescSetAttribute", f.operation_set);
  fn("cublasLtMatrixLayoutCreate", f.layout_create);
  fn("cublasLtMatmulPreferenceCreate", f.preference_create);
  fn("cublasLtMatmulPreferenceDestroy", f.preference_destroy);
  fn("cublasLtMatmulPreferenceSetAttribute", f.preference_set);
  fn("cublasLtMatmulAlgoGetHeuristic", f.heuristic);
  fn("cublasLtMatmul", f.matmul);
}

}  // namespace lt
}  // namespace ds::cuda
