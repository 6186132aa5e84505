// What attention's launchers do before the pass itself: positions of tokens behind padding, norms for reach(), delta.
#pragma once
#include "sight.cuh"

namespace ds::cuda {

// positions[b, j] = max(0, real tokens up to j - 1); one block a sequence.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    find_positions(const uint8_t* mask, int64_t mask_stride, float* positions, int T) {
  DS_SHARED(int[kThreads / kWarp], by_warp);
  int64_t b = blockIdx.x;
  int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp, before = 0;
  for (int first = 0; first < T; first += kThreads) {
    int j = first + int(threadIdx.x);
    uint32_t real = __ballot_sync(kAllLanes, j < T && mask[b * mask_stride + j] != 0);
    if (lane == 0) by_warp[warp] = __popc(real);
    __syncthreads();
    int count = before + __popc(real & (0xffffffffu >> (31 - lane)));
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) count += by_warp[w];
      before += by_warp[w];
    }
    if (j < T) positions[b * T + j] = float(count > 0 ? count - 1 : 0);
    __syncthreads();  // by_warp is written again
  }
}

constexpr int kNormRows = 256;  // of a part

inline int norm_parts(int64_t T) { return int((T + kNormRows - 1) / kNormRows); }

// norms[b, h, part]: the largest square of a query and of a key among the part's; see reach().
template <class T>
__global__ void __launch_bounds__(256) find_norms(RowsOf<const T> query, RowsOf<const T> key, const float* slopes,
                                                  float* norms, int64_t heads, int T_, int D, int parts) {
  DS_SHARED(float[2][8], by_warp);
  int64_t bh = int64_t(blockIdx.x) / parts, b = bh / heads, h = bh % heads;
  int part = int(int64_t(blockIdx.x) % parts), warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  // The bias of the head cannot reach kNegligible: infinity, without a look.
  bool wanted = slopes[h] * kLog2E * float(T_) > -kNegligible;
  float largest[2] = {wanted ? 0 : INFINITY, wanted ? 0 : INFINITY};
  int end = wanted ? (part + 1) * kNormRows : 0;
  for (int i = part * kNormRows + warp; i < end && i < T_; i += 8) {
    float squares[2] = {0, 0};
    const T *q = query.of(b, h).row(i), *k = key.of(b, h).row(i);
    for (int d = lane; d < D; d += kWarp) {
      squares[0] += to_f32(q[d]) * to_f32(q[d]);
      squares[1] += to_f32(k[d]) * to_f32(k[d]);
    }
#pragma unroll
    for (int w = 0; w < 2; ++w) largest[w] = Max()(warp_reduce<Sum>(squares[w]), largest[w]);
  }
  if (lane == 0) by_warp[0][warp] = largest[0], by_warp[1][warp] = largest[1];
  __syncthreads();
  if (threadIdx.x >= 2) return;
  float all = 0;
  for (int w = 0; w < 8; ++w) all = Max()(by_warp[threadIdx.x][w], all);
  norms[int64_t(blockIdx.x) * 2 + threadIdx.x] = all;
}

// delta[b, h, i] = sum over d of dout * out; a warp a row.
template <class T>
__global__ void __launch_bounds__(256) find_delta(RowsOf<const T> dout, RowsOf<const T> out, float* delta,
                                                  int64_t heads, int64_t T_, int64_t rows, int D) {
  int lane = int(threadIdx.x) % kWarp;
  int64_t r = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;  // of [B, T, H]: neighbours in memory
  if (r >= rows) return;
  int64_t b = r / heads / T_, i = r / heads % T_, h = r % heads;
  const T *left = dout.of(b, h).row(i), *right = out.of(b, h).row(i);
  float sum = 0;
  for (int d = lane; d < D; d += kWarp) sum += to_f32(left[d]) * to_f32(right[d]);
  sum = warp_reduce<Sum>(sum);
  if (lane == 0) delta[(b * heads + h) * T_ + i] = sum;
}

}  // namespace ds::cuda
