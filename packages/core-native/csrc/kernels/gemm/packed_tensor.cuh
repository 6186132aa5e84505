// Packed products on tensor cores: 16-bit weights with rows of their dtype, and q8 and q4 with rows of 8 bits.
//
// A warp takes two groups, 32 rows of W, as the M side of mma and eight rows of x as the N side. A 16-byte load gives a
// lane four rows' share of a fragment, straight from the packed layout: with g = lane / 4, t = lane % 4, of group g / 4
// the rows 4 (g % 4) .. + 3, of which the first two are rows g and g + 8 of one mma and the others those of a second.
// kAlong warps of a block share a depth, block by block in turns, and add up in order.
//
// Few rows of x: bound by reading W, of which each thread has 64 to 128 bytes in flight. Many: bound by the tensor
// cores for 16 bits, and by turning the integers of a block into f32, three instructions each, for q8 and q4.
#pragma once
#include "../../cuda/ptx.cuh"
#include "packed_finish.cuh"

namespace ds::cuda {

constexpr int kTensorWarps = 8, kTileRows = 8;

struct TensorOperands {
  const uint8_t* weight;
  const uint32_t* x;    // fragments, see packed_prepare.cuh
  const float* scales;  // of x's blocks, with q8 and q4
  int64_t groups, blocks, R;
};

// A lane's share of a block of a pair of groups.
template <PackedFormat kFormat>
struct WeightShare {
  static constexpr int kLoads = kFormat == PackedFormat::q4 ? 1 : kFormat == PackedFormat::q8 ? 2 : 4;
  static constexpr int kSteps = is_quantised(kFormat) ? 1 : 2;  // mma instructions along the block
  static constexpr int kFragmentWords = 2 * kSteps;             // of x
  Pack<uint32_t, 4> words[kLoads];
  Pack<f16, 4> scales;  // of its four rows

  __device__ __forceinline__ void load_from(const uint8_t* block) {
    int lane = int(threadIdx.x) % kWarp, four = lane / 4 % 4, t = lane % 4;
    const uint8_t* at = block + (is_quantised(kFormat) ? kScaleBytes : 0) + 64 * t + 16 * four;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) words[i] = load<4>(reinterpret_cast<const uint32_t*>(at + 256 * i));
    if constexpr (is_quantised(kFormat)) scales = load<4>(reinterpret_cast<const f16*>(block) + 4 * four);
  }

  // The A fragment of rows 2m and 2m + 1 of the four, of a step along the block.
  __device__ __forceinline__ void fragment(uint32_t (&a)[4], int m, int step) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int row = 2 * m + i % 2, upper = i / 2;
      if constexpr (kFormat == PackedFormat::q4) {
        // 16 (w - 8) in each byte; scale() takes the 16 back.
        uint32_t word = words[0].at[row];
        a[i] = ((upper ? word : word << 4) & 0xf0f0f0f0u) ^ 0x80808080u;
      } else {
        a[i] = words[2 * step + upper].at[row];
      }
    }
  }

  __device__ __forceinline__ float scale(int row) const {
    return to_f32(scales.at[row]) * (kFormat == PackedFormat::q4 ? 0.0625f : 1.0f);
  }
};

// sums += the products of a block with tile `tile` of x.
template <PackedFormat kFormat>
__device__ __forceinline__ void multiply_tile(float (&sums)[2][4], const WeightShare<kFormat>& share,
                                              const TensorOperands& in, int64_t tile, int64_t b) {
  using Share = WeightShare<kFormat>;
  int lane = int(threadIdx.x) % kWarp;
  int64_t block = tile * in.blocks + b;
  auto x = load<Share::kFragmentWords>(in.x + (block * kWarp + lane) * Share::kFragmentWords);
  if constexpr (is_quantised(kFormat)) {
    auto scales = load<2>(in.scales + block * kTileRows + lane % 4 * 2);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      uint32_t a[4];
      share.fragment(a, m, 0);
      int32_t integers[4] = {};
      mma_16x8x32_s8(integers, a, {x.at[0], x.at[1]});
#pragma unroll
      for (int e = 0; e < 4; ++e)
        sums[m][e] = fmaf(float(integers[e]), share.scale(2 * m + e / 2) * scales.at[e % 2], sums[m][e]);
    }
  } else {
    using T = std::conditional_t<kFormat == PackedFormat::bf16, bf16, f16>;
#pragma unroll
    for (int step = 0; step < 2; ++step)
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        uint32_t a[4];
        share.fragment(a, m, step);
        mma_16x8x16<T>(sums[m], a, {x.at[2 * step], x.at[2 * step + 1]});
      }
  }
}

template <PackedFormat kFormat, int kTiles, int kAlong>
__global__ void __launch_bounds__(kTensorWarps* kWarp)
    tensor_product(TensorOperands in, PackedPartial partial, PackedFinish finish) {
  constexpr int kTeams = kTensorWarps / kAlong, kBatch = kTiles > 4 ? 2 : is_quantised(kFormat) ? 4 : 2;
  DS_SHARED(float[kTensorWarps][kTileRows][kWarp + 1], shared);
  int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, member = warp % kAlong;
  int64_t pair = int64_t(blockIdx.x) * kTeams + warp / kAlong, group = 2 * pair + lane / 16;
  int64_t first_tile = int64_t(blockIdx.y) * kTiles, tiles = (in.R + kTileRows - 1) / kTileRows - first_tile;
  int64_t begin = in.blocks * blockIdx.z / gridDim.z, end = in.blocks * (blockIdx.z + 1) / gridDim.z;
  // Behind the last group, it again; its sums go nowhere.
  int64_t from = group < in.groups ? group : in.groups - 1;
  const uint8_t* weight = in.weight + from * in.blocks * packed_block_bytes(kFormat);

  float sums[kTiles][2][4] = {};
  for (int64_t b = begin + member; b < end; b += kBatch * kAlong) {
    WeightShare<kFormat> shares[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i)
      if (b + i * kAlong < end) shares[i].load_from(weight + (b + i * kAlong) * packed_block_bytes(kFormat));
#pragma unroll
    for (int i = 0; i < kBatch; ++i)
      if (b + i * kAlong < end) {
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile)
          if (tile < tiles) multiply_tile<kFormat>(sums[tile], shares[i], in, first_tile + tile, b + i * kAlong);
      }
  }

#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        shared[warp][lane % 4 * 2 + e % 2][lane / 16 * 16 + lane / 4 % 4 * 4 + 2 * m + e / 2] = sums[tile][m][e];
    __syncthreads();
#pragma unroll
    for (int row = member; row < kTileRows; row += kAlong) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kAlong; ++i) sum += shared[warp / kAlong * kAlong + i][row][lane];
      int64_t r = (first_tile + tile) * kTileRows + row;
      bool inside = r < in.R && group < in.groups;
      if (!partial.sums)
        finish(inside, r, group, lane % 16, sum);
      else if (inside)
        *partial.at(blockIdx.z, r, group, lane % 16) = sum;
    }
    __syncthreads();  // the next tile writes `shared` again
  }
}

}  // namespace ds::cuda
