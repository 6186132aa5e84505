// Bound by memory in f32. In 16 bits without a residual the ten rounds of multiplications take about as long as the
// memory on an H100, so a thread draws each counter once, for four elements.
#include "dropout.h"

#include "../../cuda/types.cuh"
#include "../common/philox.h"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kWords = 4;  // of a counter

template <class T>
struct Drop {
  T* y;
  const T *x, *residual;
  int64_t n;
  uint64_t seed, offset;
  uint32_t threshold;
  float scale;
};

// kDraw: p > 0. A thread reads its elements before it writes them: y may be x or the residual.
template <class T, bool kWhole, bool kDraw>
__global__ void __launch_bounds__(kBlock) drop(Drop<T> op) {
  constexpr int N = kPack<T>;  // a multiple of kWords: a pack begins with a counter's first word
  int64_t stride = int64_t(gridDim.x) * kBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * N; i < op.n; i += stride) {
    Pack<T, N> pack = load_up_to<N, kWhole>(op.n - i, op.x + i), residual{};
    if (op.residual) residual = load_up_to<N, kWhole>(op.n - i, op.residual + i);
#pragma unroll
    for (int k = 0; k < N; k += kWords) {
      PhiloxWords random{};
      if constexpr (kDraw) random = philox(op.offset + uint64_t(i + k) / kWords, op.seed);
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        float kept = op.scale * to_f32(pack.at[k + w]);
        if (kDraw && random.word[w] >> 8 < op.threshold) kept = 0;
        pack.at[k + w] = from_f32<T>(op.residual ? kept + to_f32(residual.at[k + w]) : kept);
      }
    }
    store_up_to<kWhole>(op.n - i, op.y + i, pack);
  }
}

}  // namespace

void dropout(const Dropout& op, CudaContext& context) {
  bool whole = aligned_16(op.y.data, op.x.data, op.residual.data);
  dispatch_float(op.x.dtype, [&]<class T>() {
    Drop<T> arguments{op.y.as<T>(),   op.x.as<const T>(),   op.residual.as<const T>(),
                      op.x.numel(),   uint64_t(op.seed),    uint64_t(op.offset),
                      op.threshold(), float(1 / (1 - op.p))};
    unsigned blocks = strided_blocks(arguments.n, kBlock * kPack<T>, context);
    if (blocks == 0) return;
    auto launch_drop = [&]<bool kWhole>() {
      if (arguments.threshold)
        DS_LAUNCH((drop<T, kWhole, true>), blocks, kBlock, 0, context, arguments);
      else
        DS_LAUNCH((drop<T, kWhole, false>), blocks, kBlock, 0, context, arguments);
    };
    whole ? launch_drop.template operator()<true>() : launch_drop.template operator()<false>();
  });
}

DS_CUDA_KERNEL(Dropout, dropout)

}  // namespace ds::cuda
