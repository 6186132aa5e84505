// The rows of x as the kernels of packed products read them: normalised, and put in their places in one of three ways.
#pragma once
#include "../../cuda/reduce.cuh"
#include "../../cuda/types.cuh"
#include "packed_linear.h"

namespace ds::cuda {

constexpr int kPrepareThreads = 256;

struct DeviceNorm {
  const float *weight, *bias;
  float eps;
  NormKind kind;
};

// Places: a warp hands over block b of row r, lane by lane; past the last column v is 0. Rows go in tiles of 8.

// [R, 32 blocks] of f32.
struct PlaceFloats {
  float* to;
  int64_t blocks;

  __device__ void operator()(int64_t r, int64_t b, float v) const {
    to[(r * blocks + b) * kBlockColumns + threadIdx.x % kWarp] = v;
  }
};

// B fragments of two mma_16x8x16 a block: [tile][block][lane][4 words].
template <class T>
struct PlaceHalves {
  T* to;
  int64_t blocks;

  __device__ void operator()(int64_t r, int64_t b, float v) const {
    int k = int(threadIdx.x) % kWarp, lane = int(r % 8) * 4 + k % 8 / 2, word = k / 16 * 2 + k % 16 / 8;
    to[((r / 8 * blocks + b) * kWarp + lane) * 8 + word * 2 + k % 2] = from_f32<T>(v);
  }
};

// B fragments of one mma_16x8x32_s8 a block, [tile][block][lane][2 words], and the blocks' scales, [tile][block][8
// rows].
struct PlaceIntegers {
  int8_t* to;
  float* scales;
  int64_t blocks;

  __device__ void operator()(int64_t r, int64_t b, float v) const {
    float largest = warp_reduce<Max>(fabsf(v));
    bool finite = largest < INFINITY, zero = largest < kLeastMagnitude;
    int k = int(threadIdx.x) % kWarp, lane = int(r % 8) * 4 + k % 16 / 4;
    int64_t block = r / 8 * blocks + b;
    to[(block * kWarp + lane) * 8 + k / 16 * 4 + k % 4] =
        int8_t(!finite || zero ? 0 : int(rintf(v * (127.0f / largest))));
    if (k == 0) scales[block * 8 + r % 8] = !finite ? NAN : zero ? 0.0f : largest / 127.0f;
  }
};

// A block a row, which is read from the caches after the first pass.
template <class T, class Place>
__global__ void __launch_bounds__(kPrepareThreads) prepare_rows(const T* x, int64_t K, DeviceNorm norm, Place place) {
  const T* row = x + blockIdx.x * K;
  int rank = int(threadIdx.x);
  float mean = 0, rstd = 1;
  if (norm.kind == NormKind::layer) {
    float total = 0;
    for (int64_t k = rank; k < K; k += kPrepareThreads) total += to_f32(row[k]);
    mean = block_reduce(total, rank, kPrepareThreads) / float(K);
  }
  if (norm.kind != NormKind::none) {
    float squares = 0;
    for (int64_t k = rank; k < K; k += kPrepareThreads) {
      float d = to_f32(row[k]) - mean;
      squares += d * d;
    }
    rstd = 1.0f / sqrtf(block_reduce(squares, rank, kPrepareThreads) / float(K) + norm.eps);
  }
  for (int64_t b = rank / kWarp; b < place.blocks; b += kPrepareThreads / kWarp) {
    int64_t k = b * kBlockColumns + rank % kWarp;
    float v = k < K ? to_f32(row[k]) : 0.0f;
    if (norm.kind != NormKind::none && k < K)
      v = (v - mean) * rstd * norm.weight[k] + (norm.bias ? norm.bias[k] : 0.0f);
    place(int64_t(blockIdx.x), b, v);
  }
}

}  // namespace ds::cuda
