// What happens to the sums of a packed product on the device. A half of a warp brings the 16 sums of a group and a row:
// lane l the l-th. All lanes of a warp call it; `inside` says whether there are such a row and group.
#pragma once
#include "../../cuda/rank.cuh"
#include "../../cuda/types.cuh"
#include "../common/gelu.cuh"
#include "packed_linear.h"

namespace ds::cuda {

__device__ inline float activate(Activation kind, float x) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::gelu:
      return gelu<false>(x);
    case Activation::gelu_exact:
      return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case Activation::relu:
      return x < 0 ? 0.0f : x;
    case Activation::silu:
      return x / (1.0f + expf(-x));
  }
  return x;
}

// One type for all dtypes and both ops, decided when it runs: a kernel for each would take minutes to compile, and what
// follows a sum of hundreds of products costs nothing.
struct PackedFinish {
  void* y;
  const void* residual;
  DType dtype;  // of both
  const float* bias;
  int64_t N;  // columns of y
  Activation activation;
  bool gated;
  uint64_t* ranks;  // instead of y: [R, groups], the rank of each group's largest element
  int64_t groups;

  __device__ void operator()(bool inside, int64_t r, int64_t group, int l, float sum) const {
    int64_t column = gated ? group * 8 + l % 8 : group * 16 + l;
    if (ranks) return lead(inside, r, group, l, column < N ? rank_of(sum, column) : uint64_t(Largest::kNeutral));
    inside = inside && column < N;
    if (bias && inside) sum += bias[gated && l >= 8 ? N + column : column];
    float up = __shfl_xor_sync(kAllLanes, sum, 8);
    if (!inside || (gated && l >= 8)) return;
    float value = activate(activation, sum);
    if (gated) value *= up;
    if (dtype == DType::f32) return write<float>(r * N + column, value);
    if (dtype == DType::bf16) return write<bf16>(r * N + column, value);
    write<f16>(r * N + column, value);
  }

 private:
  template <class T>
  __device__ void write(int64_t at, float value) const {
    if (residual) value += to_f32(static_cast<const T*>(residual)[at]);
    static_cast<T*>(y)[at] = from_f32<T>(value);
  }
  __device__ void lead(bool inside, int64_t r, int64_t group, int l, uint64_t best) const {
#pragma unroll
    for (int flip = 8; flip > 0; flip /= 2) best = Largest()(best, __shfl_xor_sync(kAllLanes, best, flip));
    if (inside && l == 0) ranks[r * groups + group] = best;
  }
};

// Where a product that is cut along its depth leaves its sums: [parts, R, groups, 16].
struct PackedPartial {
  float* sums;
  int64_t R, groups;

  __device__ float* at(int64_t part, int64_t r, int64_t group, int l) const {
    return sums + ((part * R + r) * groups + group) * 16 + l;
  }
};

}  // namespace ds::cuda
