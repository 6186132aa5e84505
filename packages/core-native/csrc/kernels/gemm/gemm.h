// gemm: C [M, N] = epilogue(A [M, K] B [K, N]), the product behind `linear` and its gradients, on our own pool.
//
// 16-bit operands are widened to f32 while they are packed; sums are f32, rounded once at the store. An element's bits
// depend on its own row of A, its own column of B and on K, N and M's cut into tiles by size, never on threads.
#pragma once
#include <cstdint>

#include "../../runtime/dtype.h"
#include "../common/cpu_isa.h"

namespace ds {

struct Matrix {
  void* data;
  DType dtype;
  int64_t stride;           // elements from one stored row to the next
  bool transposed = false;  // stored [columns, rows]
};

// What happens to a sum on its way out, in this order.
struct Epilogue {
  const void* bias = nullptr;  // [N]
  DType bias_dtype = DType::f32;
  void* pre = nullptr;  // [M, N], dtype of C: keeps the value in front of the GELU
  bool gelu = false;
  const void* residual = nullptr;  // [M, N], dtype of C
};

struct Gemm {
  int64_t M, N, K;
  Matrix a, b, c;           // c is not transposed
  bool accumulate = false;  // add to what C holds
  Epilogue epilogue;
  void cpu() const;
};

DS_CPU_KERNEL(Gemm, gemm)

}  // namespace ds
