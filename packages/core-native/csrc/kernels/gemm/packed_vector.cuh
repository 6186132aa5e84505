// Packed products in f32 on the CUDA cores: f32 weights, and 16-bit ones with rows of another dtype.
//
// A block takes a group and up to kRows rows of x; its warps take blocks of 32 columns in turns. A lane reads four rows
// of the group by 16 bytes, for four columns: those of lane / 4. With one row of x bound by reading W; with eight, by
// multiplications at half of their rate. Sums: a lane's columns in order, then lanes by halving, then warps in order.
#pragma once
#include "packed_finish.cuh"
#include "packed_number.cuh"

namespace ds::cuda {

constexpr int kVectorWarps = 8;

struct VectorOperands {
  const uint8_t* weight;
  const float* x;  // [R, 32 blocks]
  int64_t groups, blocks, R;
};

// Four rows of four columns of a block: at[column][row].
template <PackedFormat kFormat>
__device__ __forceinline__ void load_square(float (&at)[4][4], const uint8_t* block, int rows, int columns) {
  constexpr int kWide = kFormat == PackedFormat::f32 ? 1 : 2;  // columns side by side
#pragma unroll
  for (int i = 0; i < 4 / kWide; ++i) {
    const uint8_t* from = block + packed_offset(kFormat, 4 * columns + kWide * i, 4 * rows);
    if constexpr (kFormat == PackedFormat::f32) {
      auto pack = load<4>(reinterpret_cast<const float*>(from));
#pragma unroll
      for (int row = 0; row < 4; ++row) at[i][row] = pack.at[row];
    } else {
      using T = std::conditional_t<kFormat == PackedFormat::bf16, bf16, f16>;
      auto pack = load<8>(reinterpret_cast<const T*>(from));
#pragma unroll
      for (int k = 0; k < 8; ++k) at[2 * i + k % 2][k / 2] = to_f32(pack.at[k]);
    }
  }
}

template <PackedFormat kFormat, int kRows>
__global__ void __launch_bounds__(kVectorWarps* kWarp)
    vector_product(VectorOperands in, PackedPartial partial, PackedFinish finish) {
  DS_SHARED(float[kVectorWarps][kRows][16], shared);
  int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  int64_t group = blockIdx.x, first = int64_t(blockIdx.y) * kRows;
  int64_t begin = in.blocks * blockIdx.z / gridDim.z, end = in.blocks * (blockIdx.z + 1) / gridDim.z;
  const uint8_t* weight = in.weight + group * in.blocks * packed_block_bytes(kFormat);
  float sums[kRows][4] = {};
#pragma unroll(kRows == 1 ? 4 : 2)
  for (int64_t b = begin + warp; b < end; b += kVectorWarps) {
    float w[4][4];
    load_square<kFormat>(w, weight + b * packed_block_bytes(kFormat), lane % 4, lane / 4);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (first + r >= in.R) break;
      auto x = load<4>(in.x + ((first + r) * in.blocks + b) * kBlockColumns + lane / 4 * 4);
#pragma unroll
      for (int c = 0; c < 4; ++c)
#pragma unroll
        for (int row = 0; row < 4; ++row) sums[r][row] = fmaf(x.at[c], w[c][row], sums[r][row]);
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int row = 0; row < 4; ++row)
#pragma unroll
      for (int flip = 4; flip < kWarp; flip *= 2) sums[r][row] += __shfl_xor_sync(kAllLanes, sums[r][row], flip);
    if (lane < 4) store(&shared[warp][r][4 * lane], Pack<float, 4>{{sums[r][0], sums[r][1], sums[r][2], sums[r][3]}});
  }
  __syncthreads();
  for (int row = 2 * warp; row < kRows + kRows % 2; row += 2 * kVectorWarps) {
    int own = row + lane / 16, l = lane % 16;
    bool inside = own < kRows && first + own < in.R;
    float sum = 0;
    if (inside) {
#pragma unroll
      for (int i = 0; i < kVectorWarps; ++i) sum += shared[i][own][l];
    }
    if (!partial.sums)
      finish(inside, first + own, group, l, sum);
    else if (inside)
      *partial.at(blockIdx.z, first + own, group, l) = sum;
  }
}

}  // namespace ds::cuda
