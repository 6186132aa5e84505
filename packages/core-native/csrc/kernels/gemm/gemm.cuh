// C [M, N] = epilogue(A B) on a device: which kernel makes it, in how many parts of the depth. The description is
// gemm.h's. Decided by shapes, dtypes and alignment, so that the same op gives the same bits everywhere but where
// cuBLASLt, which has rules of its own, makes the product.
#pragma once
#include <algorithm>

#include "../common/dispatch.h"
#include "narrow_gemm.cuh"
#include "tensor_gemm.cuh"
#include "vector_gemm.cuh"

namespace ds::cuda {

// How one of our kernels makes a product.
struct GemmCut {
  bool tensor;   // on tensor cores: both factors of the same 16-bit type. Else f32 on the CUDA cores
  bool aligned;  // factors allow 16-byte accesses
  bool large;    // tiles of 128, else of 64
  int parts;     // of the depth, each with sums of its own

  int tile() const { return large ? 128 : 64; }
  dim3 grid(const Gemm& g) const {
    return {unsigned((g.M + tile() - 1) / tile() * ((g.N + tile() - 1) / tile())), 1, unsigned(parts)};
  }
};

// Tiles that fill an A100 or an H100, whose 108 and 132 multiprocessors take one or two each. Not the device's own
// number: the order of the sums would depend on it. Neither number has been measured yet.
constexpr int64_t kFullDevice = 192, kMinPartDepth = 512;

inline GemmCut cut_of(const Gemm& g) {
  auto aligned = [](const Matrix& m) { return aligned_16(m.data) && m.stride * dtype_bytes(m.dtype) % 16 == 0; };
  auto tiles = [&](int64_t tile) { return (g.M + tile - 1) / tile * ((g.N + tile - 1) / tile); };
  GemmCut cut{};
  cut.tensor = g.a.dtype == g.b.dtype && dtype_bytes(g.a.dtype) == 2;
  cut.aligned = aligned(g.a) && aligned(g.b);
  // Large tiles read less per product; where they are too few, small ones, unless a long sum can be cut instead.
  cut.large = cut.aligned && (tiles(128) >= kFullDevice / 2 || (std::min(g.M, g.N) >= 128 && g.K >= 4 * kMinPartDepth));
  int64_t most = std::max<int64_t>(g.K / kMinPartDepth, 1);
  cut.parts = int(std::clamp<int64_t>(kFullDevice / std::max<int64_t>(tiles(cut.tile()), 1), 1, most));
  return cut;
}

template <class T, class Out, bool kAAlong, bool kBAlong>
void launch_tensor_gemm(const Gemm& g, const GemmCut& cut, float* partial, CudaContext& context) {
  Factors<T> in{static_cast<const T*>(g.a.data), static_cast<const T*>(g.b.data), g.a.stride, g.b.stride, g.K};
  auto finish = finish_of<Out, T>(g, partial);
  auto launch = [&]<class Tile, bool kAligned>() {
    DS_LAUNCH((tensor_gemm<T, Out, kAAlong, kBAlong, Tile, kAligned>), cut.grid(g), kTensorThreads, Tile::kShared,
              context, in, finish);
  };
  if (cut.large)
    launch.template operator()<LargeTile, true>();
  else if (cut.aligned)
    launch.template operator()<SmallTile, true>();
  else
    launch.template operator()<SmallTile, false>();
  if (partial) finish_from(partial, cut.parts, finish, context);
}

// Results have A's dtype, the epilogue's bias B's.
template <class A, class B, bool kAAlong, bool kBAlong>
void launch_vector_gemm(const Gemm& g, const GemmCut& cut, float* partial, CudaContext& context) {
  VectorFactors<A, B> in{static_cast<const A*>(g.a.data), static_cast<const B*>(g.b.data), g.a.stride, g.b.stride, g.K};
  auto finish = finish_of<A, B>(g, partial);
  if (cut.large)
    DS_LAUNCH((vector_gemm<A, B, kAAlong, kBAlong, 128, 4>), cut.grid(g), kVectorThreads, 0, context, in, finish);
  else
    DS_LAUNCH((vector_gemm<A, B, kAAlong, kBAlong, 64, 1>), cut.grid(g), kVectorThreads, 0, context, in, finish);
  if (partial) finish_from(partial, cut.parts, finish, context);
}

}  // namespace ds::cuda
