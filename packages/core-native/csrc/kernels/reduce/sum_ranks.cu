// Bound by memory: N reads and a write of each element, nothing read twice. A thread takes 16 bytes of every source at
// once, so that N accesses are on their way. For 2, 4 and 8 ranks the loop over them is unrolled.
#include "sum_ranks.h"

#include "../../cuda/types.cuh"
#include "../common/dispatch.h"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;

// As a kernel's parameter, so that the launch reads no memory of the host later. Parameters are copied: two sizes.
template <int kMax>
struct Sources {
  const void* at[kMax];
};

// Never contracted into one operation: the definition has two roundings.
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ double add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ float multiply(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double multiply(double a, double b) { return __dmul_rn(a, b); }

// kRanks: 0 for any number. kElements: of an access.
template <int kRanks, int kElements, class T, class U, class N, int kMax>
__global__ void __launch_bounds__(kBlock)
    sum(Sources<kMax> sources, int count, U* out, int64_t n, N scale, bool accumulate) {
  const int ranks = kRanks ? kRanks : count;
  auto source = [&](int q) { return static_cast<const T*>(sources.at[q]); };
  int64_t stride = int64_t(gridDim.x) * kBlock * kElements;
  for (int64_t i = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * kElements; i < n; i += stride) {
    auto one = [&](N total, U old) {
      N scaled = multiply(total, scale);
      return narrow<U>(accumulate ? add(widen<N>(old), scaled) : scaled);
    };
    if (i + kElements > n) {
      for (int64_t j = i; j < n; ++j) {
        N total = widen<N>(source(0)[j]);
        for (int q = 1; q < ranks; ++q) total = add(total, widen<N>(source(q)[j]));
        out[j] = one(total, accumulate ? out[j] : U{});
      }
      continue;
    }
    N total[kElements];
    auto begin = load<kElements>(source(0) + i);
#pragma unroll
    for (int k = 0; k < kElements; ++k) total[k] = widen<N>(begin.at[k]);
#pragma unroll
    for (int q = 1; q < ranks; ++q) {
      auto next = load<kElements>(source(q) + i);
#pragma unroll
      for (int k = 0; k < kElements; ++k) total[k] = add(total[k], widen<N>(next.at[k]));
    }
    Pack<U, kElements> old{};
    if (accumulate) old = load<kElements>(out + i);
#pragma unroll
    for (int k = 0; k < kElements; ++k) old.at[k] = one(total[k], old.at[k]);
    store(out + i, old);
  }
}

template <int kRanks, int kMax, class T, class U, class N>
void launch_sum(const SumRanks& op, CudaContext& context) {
  Sources<kMax> sources{};
  uintptr_t all = reinterpret_cast<uintptr_t>(op.out);
  for (int q = 0; q < op.ranks; ++q) {
    sources.at[q] = op.sources[q];
    all |= reinterpret_cast<uintptr_t>(op.sources[q]);
  }
  U* out = static_cast<U*>(op.out);
  if (all % 16 == 0) {
    constexpr int kElements = kPack<T>;
    unsigned blocks = strided_blocks(op.n, kBlock * kElements, context);
    DS_LAUNCH((sum<kRanks, kElements, T, U, N, kMax>), blocks, kBlock, 0, context, sources, op.ranks, out, op.n,
              N(op.scale), op.accumulate);
  } else {
    unsigned blocks = strided_blocks(op.n, kBlock, context);
    DS_LAUNCH((sum<kRanks, 1, T, U, N, kMax>), blocks, kBlock, 0, context, sources, op.ranks, out, op.n, N(op.scale),
              op.accumulate);
  }
}

template <class T, class U, class N>
void sum_as(const SumRanks& op, CudaContext& context) {
  if (op.ranks == 1) return launch_sum<1, 1, T, U, N>(op, context);
  if (op.ranks == 2) return launch_sum<2, 2, T, U, N>(op, context);
  if (op.ranks == 4) return launch_sum<4, 4, T, U, N>(op, context);
  if (op.ranks == 8) return launch_sum<8, 8, T, U, N>(op, context);
  launch_sum<0, SumRanks::kMaxOnGpu, T, U, N>(op, context);
}

void sum_ranks(const SumRanks& op, CudaContext& context) {
  if (op.ranks < 1 || op.ranks > SumRanks::kMaxOnGpu)
    throw Error("UNSUPPORTED", SumRanks::name, "1 to 256 ranks", std::to_string(op.ranks), "");
  if (op.n == 0) return;
  if (op.dtype == DType::f64) return sum_as<double, double, double>(op, context);
  dispatch_float(op.dtype, [&]<class T>() {
    if (op.out_dtype == op.dtype) return sum_as<T, T, float>(op, context);
    sum_as<T, float, float>(op, context);
  });
}

}  // namespace

DS_CUDA_KERNEL(SumRanks, sum_ranks)

}  // namespace ds::cuda
