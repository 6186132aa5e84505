// Bound by arithmetic in f64: some sixty operations a number. It runs once per model, and f64 gives the CPU's numbers.
#include "fill_normal.h"

#include "../../cuda/types.cuh"
#include "../common/dispatch.h"
#include "../common/philox.h"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;

// A thread makes the two numbers of a counter. `y` begins with number `offset`, which may be the second of its counter.
template <class T>
__global__ void __launch_bounds__(kBlock)
    draw(int64_t n, T* y, double mean, double deviation, uint64_t seed, int64_t offset) {
  int64_t first = offset / 2, counters = (offset + n + 1) / 2 - first, stride = int64_t(gridDim.x) * kBlock;
  for (int64_t c = int64_t(blockIdx.x) * kBlock + threadIdx.x; c < counters; c += stride) {
    PhiloxWords words = philox(uint64_t(first + c), seed);
    double radius = sqrt(-2 * log((words.word[0] + 0.5) * 0x1p-32)), sine, cosine;
    sincospi(words.word[1] * 0x1p-31, &sine, &cosine);
    int64_t i = 2 * c - offset % 2;
    if (i >= 0) y[i] = narrow<T>(mean + deviation * (radius * cosine));
    if (i + 1 < n) y[i + 1] = narrow<T>(mean + deviation * (radius * sine));
  }
}

}  // namespace

void fill_normal(const FillNormal& op, CudaContext& context) {
  int64_t n = op.y.numel(), counters = (op.offset % 2 + n + 1) / 2;
  if (n == 0) return;
  dispatch_float(op.y.dtype, [&]<class T>() {
    DS_LAUNCH(draw<T>, strided_blocks(counters, kBlock, context), kBlock, 0, context, n, op.y.as<T>(), op.mean, op.std,
              uint64_t(op.seed), op.offset);
  });
}

DS_CUDA_KERNEL(FillNormal, fill_normal)

}  // namespace ds::cuda
