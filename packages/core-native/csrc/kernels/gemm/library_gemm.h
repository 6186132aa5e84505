// The library's single-precision product, cut over our own pool. The serial OpenBLAS starts no threads of its own.
#pragma once
#include <cstdint>

namespace ds {

// Row-major C [M, N] = A B (+ C when accumulate). `a_transposed`: A is stored [K, M]; likewise B as [N, K].
struct LibraryGemm {
  int64_t M, N, K;
  const float* a;
  int64_t a_stride;
  bool a_transposed;
  const float* b;
  int64_t b_stride;
  bool b_transposed;
  float* c;
  int64_t c_stride;
  bool accumulate;
};

bool has_library_gemm();
// Which product `linear` takes where it has the choice. `automatic`: the faster one; see linear.cpu.cpp.
enum class GemmChoice { automatic, library, own };
GemmChoice gemm_choice();
void set_gemm_choice(GemmChoice choice);
void library_gemm(const LibraryGemm& g);

}  // namespace ds
