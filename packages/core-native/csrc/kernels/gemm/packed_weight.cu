// Bound by memory: a warp packs 32 columns of a row, a block of threads widens a row.
#include "packed_weight.h"

#include "../../cuda/rank.cuh"
#include "packed_number.cuh"

namespace ds::cuda {
namespace {

constexpr int kPackWarps = 8, kRowThreads = 128;

// The place of a row in the layout.
struct RowPlace {
  int64_t rows;
  bool gated;

  __device__ int64_t group(int64_t row) const { return gated ? row % (rows / 2) / 8 : row / kGroupRows; }
  __device__ int lane(int64_t row) const {
    return int(gated ? row / (rows / 2) * 8 + row % (rows / 2) % 8 : row % kGroupRows);
  }
};

// The element of largest magnitude of a warp's, the first of equals; NaN where one is not finite. All lanes get it.
__device__ float extreme(float w) {
  int lane = int(threadIdx.x);
  uint64_t size = __float_as_uint(w) & 0x7fffffffu;
  uint64_t best = warp_reduce<Largest>(size << 32 | uint32_t(kWarp - lane));
  float winner = __shfl_sync(kAllLanes, w, kWarp - int(uint32_t(best)));
  return uint32_t(best >> 32) >= 0x7f800000u ? NAN : winner;
}

template <PackedFormat kFormat>
__device__ void put_column(float w, uint8_t* block, int lane) {
  int c = int(threadIdx.x);
  uint8_t* to = block + packed_offset(kFormat, c, lane);
  if constexpr (kFormat == PackedFormat::f32) {
    *reinterpret_cast<float*>(to) = w;
  } else if constexpr (!is_quantised(kFormat)) {
    using T = std::conditional_t<kFormat == PackedFormat::bf16, bf16, f16>;
    *reinterpret_cast<T*>(to) = from_f32<T>(w);
  } else {
    constexpr float kLowest = kFormat == PackedFormat::q8 ? -127 : -8, kHighest = kFormat == PackedFormat::q8 ? 127 : 7;
    float largest = extreme(w);
    f16 rounded = from_f32<f16>(kFormat == PackedFormat::q8 ? fabsf(largest) / 127.0f : largest / -8.0f);
    if (c == 0) reinterpret_cast<f16*>(block)[lane] = rounded;
    float scale = to_f32(rounded);
    int q = 0;
    if (scale < 0 || scale > 0) q = int(rintf(fminf(fmaxf(w / scale, kLowest), kHighest)));
    if constexpr (kFormat == PackedFormat::q8) {
      *to = uint8_t(q);
    } else {
      int upper = __shfl_sync(kAllLanes, q, c % 16 + 16);
      if (c < 16) *to = uint8_t((q + 8) | (upper + 8) << 4);
    }
  }
}

// A warp a block of columns of a row.
template <class T, PackedFormat kFormat>
__global__ void __launch_bounds__(kWarp* kPackWarps)
    pack(uint8_t* bytes, const T* source, RowPlace place, int64_t first, int64_t rows, int64_t K, int64_t blocks) {
  for (int64_t item = int64_t(blockIdx.x) * kPackWarps + threadIdx.y; item < rows * blocks;
       item += int64_t(gridDim.x) * kPackWarps) {
    int64_t r = item / blocks, b = item % blocks, k = b * kBlockColumns + threadIdx.x;
    float w = k < K ? to_f32(source[r * K + k]) : 0.0f;
    put_column<kFormat>(w, bytes + (place.group(first + r) * blocks + b) * packed_block_bytes(kFormat),
                        place.lane(first + r));
  }
}

template <PackedFormat kFormat>
__global__ void __launch_bounds__(kRowThreads)
    widen_rows(float* y, const int32_t* ids, const uint8_t* bytes, RowPlace place, int64_t R, int64_t K, int64_t blocks,
               FaultReport report) {
  for (int64_t r = blockIdx.x; r < R; r += gridDim.x) {
    int64_t row = ids[r];
    if (row < 0 || row >= place.rows) {
      if (threadIdx.x == 0) raise_fault(report, place.rows, row, r);
      continue;
    }
    const uint8_t* group = bytes + place.group(row) * blocks * packed_block_bytes(kFormat);
    for (int64_t k = threadIdx.x; k < K; k += kRowThreads)
      y[r * K + k] = number_at<kFormat>(group + k / kBlockColumns * packed_block_bytes(kFormat), int(k % kBlockColumns),
                                        place.lane(row));
  }
}

}  // namespace

void pack_weight(const PackWeight& op, CudaContext& context) {
  const PackedWeight& weight = op.weight;
  int64_t n = op.source.dims[0], blocks = weight.blocks();
  if (n == 0) return;
  dispatch_float(op.source.dtype, [&]<class T>() {
    dispatch_format(weight.format(), [&]<PackedFormat kFormat>() {
      DS_LAUNCH((pack<T, kFormat>), strided_blocks(n * blocks, kPackWarps, context), dim3(kWarp, kPackWarps), 0,
                context, weight.bytes.as<uint8_t>(), op.source.as<const T>(), RowPlace{weight.rows, weight.gated},
                op.first, n, weight.columns, blocks);
    });
  });
}

void packed_rows(const PackedRows& op, CudaContext& context) {
  const PackedWeight& weight = op.weight;
  int64_t R = op.ids.numel();
  if (R == 0) return;
  FaultReport report = context.fault(
      [](const int64_t* numbers) { return bad_id(PackedRows::name, numbers[0], numbers[1], numbers[2]); });
  dispatch_format(weight.format(), [&]<PackedFormat kFormat>() {
    DS_LAUNCH(widen_rows<kFormat>, strided_blocks(R, 1, context), kRowThreads, 0, context, op.y.as<float>(),
              op.ids.as<const int32_t>(), weight.bytes.as<const uint8_t>(), RowPlace{weight.rows, weight.gated}, R,
              weight.columns, weight.blocks(), report);
  });
}

DS_CUDA_KERNEL(PackWeight, pack_weight)
DS_CUDA_KERNEL(PackedRows, packed_rows)

}  // namespace ds::cuda
