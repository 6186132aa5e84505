// The tiles of rows that attention's kernels multiply on the tensor cores, for every dtype.
//
// A warp owns kM times 16 rows; a block's warps own neighbouring ones. They meet tiles of other rows, keys for queries
// or queries for keys. Two products serve all passes:
//   add_products:  [own, other] += own other^T       the scores, and dout v^T
//   add_weighted:  [own, D] += weights other         with weights [own, other] in registers, as add_products left them
// f32 counts as two TF32 numbers, high + low, and three products; what is left out is below 2^-22 of each term.
//
// In shared memory a row is kD elements, cut in chunks of 16 bytes that are swizzled by the row's number: eight rows
// read at one chunk, as ldmatrix does, are in eight different quarters of the banks.
#pragma once
#include "../../cuda/ptx.cuh"

namespace ds::cuda {

template <class T, int kD>
struct SharedRows {
  static constexpr int kChunks = kD / kPack<T>;
  static_assert(kChunks % 8 == 0);
  T* data;

  __device__ T* chunk(int row, int c) const { return data + (row * kChunks + (c ^ (row & 7))) * kPack<T>; }
  __device__ T* element(int row, int d) const { return chunk(row, d / kPack<T>) + d % kPack<T>; }

  // A lane's view of row `row` and those multiples of 8 behind it, and of every second chunk, from `odd` (0 or 1) on.
  // With constant arguments of at(), four addresses serve all chunks.
  struct View {
    const T* start;
    int turn;
    __device__ const T* at(int eights, int even) const {
      return start + (eights * 8 * kChunks + (even & ~7)) * kPack<T> + ((even & 7) ^ turn) * kPack<T>;
    }
  };
  __device__ View view(int row, int odd) const { return {data + row * kChunks * kPack<T>, (row & 7) ^ odd}; }
};

// The rows of one head in global memory, `stride` elements apart.
template <class T>
struct HeadRows {
  T* data;
  int64_t stride;
  __device__ T* row(int64_t i) const { return data + i * stride; }
};

// Where rows lie in a tensor, in elements from one batch, head and token to the next.
template <class T>
struct RowsOf {
  T* data;
  int64_t batch, head, token;
  __device__ HeadRows<T> of(int64_t b, int64_t h) const { return {data + b * batch + h * head, token}; }
};

// Starts the copy of rows of `from`, a HeadRows or alike, kRows of which `token(row)` tells the number; those from
// `end` on, and columns from D on, are zeros. `aligned`: every row starts at 16 bytes and D is whole chunks; else the
// copy is done by elements, at once.
template <int kRows, int kThreads, class T, int kD, class From, class Token>
__device__ __forceinline__ void fetch_rows(SharedRows<T, kD> to, const From& from, int end, int D, bool aligned,
                                           Token&& token) {
  constexpr int kChunks = kD / kPack<T>;
  // Not unrolled further: addresses would take the registers that the sums need.
  if (aligned) {
#pragma unroll 2
    for (int i = int(threadIdx.x); i < kRows * kChunks; i += kThreads) {
      int row = i / kChunks, c = i % kChunks, at = token(row);
      bool valid = at < end && c * kPack<T> < D;
      copy_async_16(to.chunk(row, c), valid ? from.row(at) + c * kPack<T> : from.data, valid);
    }
    return;
  }
#pragma unroll 1
  for (int i = int(threadIdx.x); i < kRows * kChunks; i += kThreads) {
    int row = i / kChunks, c = i % kChunks, d = c * kPack<T>, at = token(row);
    Pack<T> pack{};
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      if (at < end && d + k < D) pack.at[k] = from.row(at)[d + k];
    store(to.chunk(row, c), pack);
  }
}

// An operand's registers as the tensor cores take them: 16-bit elements as they are, f32 as high + low.
template <class T, int N>
struct Operand {
  uint32_t high[N], low[std::is_same_v<T, float> ? N : 1];

  Operand() = default;
  __device__ explicit Operand(const uint32_t* bits) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if constexpr (std::is_same_v<T, float>) {
        float x = __uint_as_float(bits[i]);
        high[i] = to_tf32(x);
        low[i] = to_tf32(x - __uint_as_float(high[i]));
      } else {
        high[i] = bits[i];
      }
    }
  }
};

template <class T>
__device__ __forceinline__ void multiply(float (&c)[4], const Operand<T, 4>& a, const Operand<T, 2>& b) {
  if constexpr (std::is_same_v<T, float>) {
    mma_16x8x8_tf32(c, a.high, b.low);
    mma_16x8x8_tf32(c, a.low, b.high);
    mma_16x8x8_tf32(c, a.high, b.high);
  } else {
    mma_16x8x16<T>(c, a.high, b.high);
  }
}

// Sums [16 kM, 8 kN] of a warp: element e of [m][n] is row 16 m + g + e / 2 * 8, column 8 n + 2 t + e % 2, where
// g = lane / 4, t = lane % 4.
template <int kM, int kN>
struct Sums {
  float at[kM][kN][4] = {};
};

// sums += own other^T over the columns. `row`: the first of the warp's own.
template <class T, int kD, int kM, int kN>
__device__ __forceinline__ void add_products(Sums<kM, kN>& sums, SharedRows<T, kD> own, int row,
                                             SharedRows<T, kD> other) {
  int lane = int(threadIdx.x) % kWarp;
  auto left_rows = own.view(row + (lane & 15), lane >> 4);
  auto right_rows = other.view((lane & 7) + (lane >> 4) * 8, lane >> 3 & 1);
  // Unrolled as far as registers allow: the fragments of later columns are read ahead.
  constexpr int kSteps = kD / kPack<T> / 2;
  [[maybe_unused]] constexpr int kUnrolled = sizeof(T) == 2 && kD <= 128 ? kSteps : 4;
#pragma unroll kUnrolled
  for (int k = 0; k < kSteps; ++k) {
    uint32_t bits[4];
    Operand<T, 4> a[kM];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      load_matrices<false>(bits, left_rows.at(2 * m, 2 * k));
      a[m] = Operand<T, 4>(bits);
    }
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      load_matrices<false>(bits, right_rows.at(n, 2 * k));
      Operand<T, 2> left(bits), right(bits + 2);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply<T>(sums.at[m][n], a[m], left);
        multiply<T>(sums.at[m][n + 1], a[m], right);
      }
    }
  }
}

// Two f32 as a register of two 16-bit elements, the first in the lower half.
template <class T>
__device__ __forceinline__ uint32_t pack_two(float low, float high) {
  Pack<T, 2> pack{from_f32<T>(low), from_f32<T>(high)};
  uint32_t bits;
  memcpy(&bits, &pack, 4);
  return bits;
}

// sums += weights other, with one row of `other` for each column of the weights. 16-bit types round the weights.
template <class T, int kD, int kM, int kN>
__device__ __forceinline__ void add_weighted(Sums<kM, kD / 8>& sums, const Sums<kM, kN>& weights,
                                             SharedRows<T, kD> other) {
  int lane = int(threadIdx.x) % kWarp;
  if constexpr (std::is_same_v<T, float>) {
    // The order of the eight rows of a step is free: with 2 t and 2 t + 1 for t and t + 4, the weights are already
    // where they are wanted, and the lanes' reads meet 32 banks.
    int g = lane / 4, t = lane % 4;
    auto first = other.view(2 * t, g / 4), second = other.view(2 * t + 1, g / 4);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      Operand<T, 4> a[kM];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const float(&w)[4] = weights.at[m][n];
        uint32_t bits[4] = {__float_as_uint(w[0]), __float_as_uint(w[2]), __float_as_uint(w[1]), __float_as_uint(w[3])};
        a[m] = Operand<T, 4>(bits);
      }
#pragma unroll
      for (int d = 0; d < kD / 8; ++d) {
        uint32_t bits[2] = {__float_as_uint(first.at(n, 2 * d)[g % 4]), __float_as_uint(second.at(n, 2 * d)[g % 4])};
        Operand<T, 2> b(bits);
#pragma unroll
        for (int m = 0; m < kM; ++m) multiply<T>(sums.at[m][d], a[m], b);
      }
    }
  } else {
    auto rows = other.view(lane & 15, lane >> 4);
#pragma unroll
    for (int k = 0; k < kN / 2; ++k) {
      Operand<T, 4> a[kM];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const float(&left)[4] = weights.at[m][2 * k], (&right)[4] = weights.at[m][2 * k + 1];
        uint32_t bits[4] = {pack_two<T>(left[0], left[1]), pack_two<T>(left[2], left[3]),
                            pack_two<T>(right[0], right[1]), pack_two<T>(right[2], right[3])};
        a[m] = Operand<T, 4>(bits);
      }
#pragma unroll
      for (int d = 0; d < kD / 16; ++d) {
        uint32_t bits[4];
        load_matrices<true>(bits, rows.at(2 * k, 2 * d));
        Operand<T, 2> left(bits), right(bits + 2);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          multiply<T>(sums.at[m][2 * d], a[m], left);
          multiply<T>(sums.at[m][2 * d + 1], a[m], right);
        }
      }
    }
  }
}

// Writes a warp's sums, row r times factor[m][r / 8 % 2], to the rows first .. of a tensor, before `end`. The warp's
// part of `own`, which nothing else reads any more, turns them into rows of 16-byte stores.
template <class T, int kD, int kM, class To>
__device__ __forceinline__ void write_rows(const Sums<kM, kD / 8>& sums, const float (&factor)[kM][2],
                                           SharedRows<T, kD> own, int row, const To& to, int first, int end, int D,
                                           bool aligned) {
  constexpr int kChunks = kD / kPack<T>;
  int lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int d = 0; d < kD / 8; ++d)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float f = factor[m][half];
        Pack<T, 2> two{from_f32<T>(sums.at[m][d][2 * half] * f), from_f32<T>(sums.at[m][d][2 * half + 1] * f)};
        store(own.element(row + m * 16 + g + half * 8, d * 8 + 2 * t), two);
      }
  __syncwarp();
  for (int i = lane; i < kM * 16 * kChunks; i += kWarp) {
    int r = i / kChunks, c = i % kChunks, d = c * kPack<T>;
    if (first + r >= end || d >= D) continue;
    Pack<T> pack = load<kPack<T>>(own.chunk(row + r, c));
    T* target = to.row(first + r) + d;
    if (aligned) {
      store(target, pack);
    } else {
      for (int k = 0; k < kPack<T> && d + k < D; ++k) target[k] = pack.at[k];
    }
  }
}

// Calls fn<kD>() with the smallest width that holds D columns.
template <class F>
void for_width(int64_t D, const CudaContext& context, F&& fn) {
  if (D <= 64) return fn.template operator()<64>();
  if (D <= 128) return fn.template operator()<128>();
  if (D <= 256) return fn.template operator()<256>();
  throw Error("UNSUPPORTED", context.op(), "heads of at most 256 elements", std::to_string(D),
              "use more heads of a smaller size");
}

}  // namespace ds::cuda
