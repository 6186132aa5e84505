// Products of blocks that lie in the first-level caches: C [M, N] = A [M, R] * B [R, N], f32.
//
// Everything attention multiplies is of this form: the elements of A are broadcast (from any pair of strides, so a
// transpose costs nothing), rows of B and C are vectors. Each element of C is one chain of fused multiply-adds over
// r = 0, 1, ..., R - 1, whatever the tile it falls into: its bits depend on its own operands alone.
#pragma once
#include "../common/vec.h"

namespace ds::DS_ISA {

// Registers: kTileRows * vectors accumulators, the row of B, one broadcast.
#if defined(__AVX512F__)
constexpr int kTileVectors = 4;
template <int vectors>
constexpr int kTileRows = 6;
#elif defined(__AVX2__)
constexpr int kTileVectors = 3;
template <int vectors>
constexpr int kTileRows = vectors == 3 ? 4 : 6;
#else
constexpr int kTileVectors = 4;
template <int vectors>
constexpr int kTileRows = 6;
#endif

// What C starts from.
enum class From { zero, itself, itself_times };

// `row` and `step`: distance in A from m to m + 1, and from r to r + 1. `factor` [N]: for itself_times.
struct Left {
  const float* data;
  int64_t row, step;
};

// The loops over constants must unroll early, else the accumulators live in memory.
template <int rows, int vectors, From from>
inline void product_tile(Left a, int64_t R, const float* b, int64_t ldb, float* c, int64_t ldc, const float* factor) {
  Vec sum[rows][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      if constexpr (from == From::zero) sum[i][v] = Vec{};
      if constexpr (from != From::zero) sum[i][v] = load(c + i * ldc + v * kLanes);
      if constexpr (from == From::itself_times) sum[i][v] *= load(factor + v * kLanes);
    }
  const float* p = a.data;
  for (int64_t r = 0; r < R; ++r, p += a.step, b += ldb) {
    Vec row[vectors];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) row[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      Vec x = splat(p[i * a.row]);
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) sum[i][v] = x * row[v] + sum[i][v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) store(c + i * ldc + v * kLanes, sum[i][v]);
}

template <int vectors, From from>
inline void product_columns(Left a, int64_t M, int64_t R, const float* b, int64_t ldb, float* c, int64_t ldc,
                            const float* factor) {
  int64_t m = 0;
  auto rows_of = [&]<int rows>() {
    for (; m + rows <= M; m += rows)
      product_tile<rows, vectors, from>({a.data + m * a.row, a.row, a.step}, R, b, ldb, c + m * ldc, ldc, factor);
  };
  rows_of.template operator()<kTileRows<vectors>>();
  if constexpr (kTileRows < vectors >> 4) rows_of.template operator()<4>();
  rows_of.template operator()<2>();
  rows_of.template operator()<1>();
}

// N is a multiple of kLanes.
template <From from>
inline void block_product(Left a, int64_t M, int64_t N, int64_t R, const float* b, int64_t ldb, float* c, int64_t ldc,
                          const float* factor = nullptr) {
  for (int64_t left = N / kLanes; left > 0;) {
    // No narrow last tile: 5 = 3 + 2, not 4 + 1.
    int64_t take = left <= kTileVectors ? left : left < 2 * kTileVectors ? (left + 1) / 2 : kTileVectors;
    switch (take) {
      case 4:
        if constexpr (kTileVectors >= 4) product_columns<4, from>(a, M, R, b, ldb, c, ldc, factor);
        break;
      case 3:
        product_columns<3, from>(a, M, R, b, ldb, c, ldc, factor);
        break;
      case 2:
        product_columns<2, from>(a, M, R, b, ldb, c, ldc, factor);
        break;
      default:
        product_columns<1, from>(a, M, R, b, ldb, c, ldc, factor);
    }
    left -= take;
    b += take * kLanes, c += take * kLanes;
    if (factor) factor += take * kLanes;
  }
}

}  // namespace ds::DS_ISA
