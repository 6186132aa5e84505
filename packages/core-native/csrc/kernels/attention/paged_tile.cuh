// Sixteen tokens of one key-value head in shared memory, and the products of rows with them on the tensor cores.
//
// Keys lie as in their page, [kD, 16]: a row is the tokens of one element. Read with ldmatrix.trans (16-bit), or
// element by element (f32, and whatever is not of the rows' dtype), they are the right operand. Rows of values are
// padded by 16 bytes. With the swizzle of the keys no read meets a bank twice. Bytes are exact in every dtype of the
// rows; their scales go to the scores and to the probabilities.
#pragma once
#include "flash_forward.cuh"
#include "paged_rows.cuh"

namespace ds::cuda {

constexpr int kTokens = 16;  // of a tile

template <class K, int kD>
struct TokenTile {
  static constexpr int kPitch = kD + 16 / int(sizeof(K));  // of a row of values
  static constexpr int kScaleBytes = sizeof(K) == 1 ? 2 * kTokens * 4 : 0;
  static constexpr int kBytes = (kD * kTokens + kTokens * kPitch) * int(sizeof(K)) + kScaleBytes;
  static_assert(kBytes % 16 == 0);
  unsigned char* data;

  __device__ K* keys() const { return reinterpret_cast<K*>(data); }
  __device__ K* values() const { return keys() + kD * kTokens; }
  __device__ float* key_scales() const { return reinterpret_cast<float*>(data + kBytes - kScaleBytes); }
  __device__ float* value_scales() const { return key_scales() + kTokens; }

  // Where the keys' chunk of 16 bytes with element d of token `token` begins.
  static __device__ int key_chunk(int d, int token) {
    constexpr int kOf = kPack<K>;  // tokens of a chunk
    int c = token / kOf;
    if constexpr (sizeof(K) == 4) c ^= (d >> 1 & 1) << 1;
    if constexpr (sizeof(K) == 2) c ^= d >> 2 & 1;
    return d * kTokens + c * kOf;
  }
  __device__ K key(int d, int token) const { return keys()[key_chunk(d, token) + token % kPack<K>]; }
  __device__ K value(int token, int d) const { return values()[token * kPitch + d]; }
};

// Which tokens of a sequence a tile may hold: those of [from, end); its pages by `table`.
struct TokenRange {
  const int32_t* table;
  int head, from, end;
};

// Starts the copies of tokens first .. first + 15; what is not in the range, or beyond D, is zeros. `aligned`: chunks
// of 16 bytes lie within a page and are aligned, else the copy is done by elements, at once. `rank` of kThreads.
template <int kThreads, class K, int kD>
__device__ __forceinline__ void fetch_tokens(TokenTile<K, kD> to, const PagesOf<K>& pages, const TokenRange& range,
                                             int first, int rank, bool aligned) {
  constexpr int kOf = kPack<K>, kKeyChunks = kTokens / kOf, kValueChunks = kD / kOf;
  int page = pages.page, D = pages.D;
  auto wanted = [&](int token) { return token >= range.from && token < range.end; };
  // In tokens: where the head's part of the token's page begins.
  auto start_of = [&](int token) { return pages.head(range.table[token / page], range.head); };
  auto place = [&](int token) { return start_of(token) + token % page; };
  if (aligned) {
    // Eight tokens are in one page, which is there if any of them is wanted; where they are, less their number in the
    // tile. Found once, and loops not unrolled: addresses would take the registers that the sums need.
    auto is_there = [&](int token) { return token < range.end && token + 8 > range.from; };
    bool low = is_there(first), high = is_there(first + 8);
    int64_t low_start = low ? start_of(first) + first % page : 0;
    int64_t high_start = high ? start_of(first + 8) + (first + 8) % page - 8 : 0;
#pragma unroll 1
    for (int i = rank; i < kD * kKeyChunks; i += kThreads) {
      int d = i / kKeyChunks, token = i % kKeyChunks * kOf, slot = (first + token) & (page - 1);
      bool valid = d < D && (token < 8 ? low || (kOf > 8 && high) : high);
      int64_t start = (token < 8 && low ? low_start : high_start) + token - slot;
      copy_async_16(to.keys() + TokenTile<K, kD>::key_chunk(d, token),
                    valid ? pages.keys + start * D + int64_t(d) * page + slot : pages.keys, valid);
    }
#pragma unroll 1
    for (int i = rank; i < kTokens * kValueChunks; i += kThreads) {
      int token = i / kValueChunks, d = i % kValueChunks * kOf;
      bool valid = d < D && wanted(first + token);
      copy_async_16(to.values() + token * TokenTile<K, kD>::kPitch + d,
                    valid ? pages.values + ((token < 8 ? low_start : high_start) + token) * D + d : pages.values,
                    valid);
    }
  } else {
#pragma unroll 1
    for (int i = rank; i < kD * kTokens; i += kThreads) {
      int d = i / kTokens, token = first + i % kTokens;
      bool valid = d < D && wanted(token);
      K* key = to.keys() + TokenTile<K, kD>::key_chunk(d, i % kTokens) + i % kTokens % kOf;
      *key = valid ? pages.keys[start_of(token) * D + int64_t(d) * page + token % page] : K{};
      int row = i / kD, column = i % kD;
      valid = column < D && wanted(first + row);
      to.values()[row * TokenTile<K, kD>::kPitch + column] =
          valid ? pages.values[place(first + row) * D + column] : K{};
    }
  }
  if constexpr (sizeof(K) == 1)
    for (int i = rank; i < kTokens; i += kThreads) {
      bool valid = wanted(first + i);
      to.key_scales()[i] = valid ? pages.key_scales[place(first + i)] : 0;
      to.value_scales()[i] = valid ? pages.value_scales[place(first + i)] : 0;
    }
}

// What two elements of K are as a register of two T, the first in the lower half.
template <class T, class K>
__device__ __forceinline__ uint32_t pair_of(K low, K high) {
  return pack_two<T>(to_f32(low), to_f32(high));
}

// s[first_n], s[first_n + 1] += own tokens^T. `row`: the first of the warp's own.
template <class T, int kQ, class K, int kD, int kM, int kN>
__device__ __forceinline__ void add_scores(Sums<kM, kN>& s, int first_n, SharedRows<T, kQ> own, int row,
                                           TokenTile<K, kD> tile) {
  static_assert(kQ == kD);
  int lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  auto left_rows = own.view(row + (lane & 15), lane >> 4);
  constexpr int kStep = 32 / int(sizeof(T));  // elements of D a product takes: two chunks of the rows
  constexpr int kSteps = kD / kStep;
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
    int d = k * kStep;
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          bits[2 * n + half] = __float_as_uint(to_f32(tile.key(d + half * 4 + t, n * 8 + g)));
    } else if constexpr (std::is_same_v<T, K>) {
      int element = d + (lane >> 3 & 1) * 8 + (lane & 7);
      load_matrices<true>(bits, tile.keys() + TokenTile<K, kD>::key_chunk(element, (lane >> 4) * 8));
    } else {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          int element = d + half * 8 + 2 * t, token = n * 8 + g;
          bits[2 * n + half] = pair_of<T>(tile.key(element, token), tile.key(element + 1, token));
        }
    }
    Operand<T, 2> left(bits), right(bits + 2);
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      multiply<T>(s.at[m][first_n], a[m], left);
      multiply<T>(s.at[m][first_n + 1], a[m], right);
    }
  }
}

// sums += weights[first_n], weights[first_n + 1] times the tile's values.
template <class T, class K, int kD, int kM, int kN>
__device__ __forceinline__ void add_values(Sums<kM, kD / 8>& sums, const Sums<kM, kN>& weights, int first_n,
                                           TokenTile<K, kD> tile) {
  int lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  if constexpr (sizeof(T) == 4) {
    // As add_weighted: tokens 2 t and 2 t + 1 for t and t + 4.
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      Operand<T, 4> a[kM];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const float(&w)[4] = weights.at[m][first_n + n];
        uint32_t bits[4] = {__float_as_uint(w[0]), __float_as_uint(w[2]), __float_as_uint(w[1]), __float_as_uint(w[3])};
        a[m] = Operand<T, 4>(bits);
      }
#pragma unroll
      for (int d = 0; d < kD / 8; ++d) {
        uint32_t bits[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) bits[i] = __float_as_uint(to_f32(tile.value(n * 8 + 2 * t + i, d * 8 + g)));
        Operand<T, 2> b(bits);
#pragma unroll
        for (int m = 0; m < kM; ++m) multiply<T>(sums.at[m][d], a[m], b);
      }
    }
  } else {
    Operand<T, 4> a[kM];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const float(&left)[4] = weights.at[m][first_n], (&right)[4] = weights.at[m][first_n + 1];
      uint32_t bits[4] = {pack_two<T>(left[0], left[1]), pack_two<T>(left[2], left[3]), pack_two<T>(right[0], right[1]),
                          pack_two<T>(right[2], right[3])};
      a[m] = Operand<T, 4>(bits);
    }
#pragma unroll
    for (int d = 0; d < kD / 16; ++d) {
      uint32_t bits[4];
      if constexpr (std::is_same_v<T, K>) {
        load_matrices<true>(bits, tile.values() + (lane & 15) * TokenTile<K, kD>::kPitch + d * 16 + (lane >> 4) * 8);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          int token = i % 2 * 8 + 2 * t, column = d * 16 + i / 2 * 8 + g;
          bits[i] = pair_of<T>(tile.value(token, column), tile.value(token + 1, column));
        }
      }
      Operand<T, 2> left(bits), right(bits + 2);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        multiply<T>(sums.at[m][2 * d], a[m], left);
        multiply<T>(sums.at[m][2 * d + 1], a[m], right);
      }
    }
  }
}

// Multiplies the columns of a tile by a number each.
template <int kM, int kN>
__device__ __forceinline__ void scale_columns(Sums<kM, kN>& s, int first_n, const float* factors) {
  int t = int(threadIdx.x) % 4;
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      float factor = factors[n * 8 + 2 * t + k];
#pragma unroll
      for (int m = 0; m < kM; ++m) s.at[m][first_n + n][k] *= factor, s.at[m][first_n + n][2 + k] *= factor;
    }
}

// The rows of a key-value head side by side: row i is query head i % group of token i / group.
template <class T>
struct GroupRows {
  T* data;
  int64_t token, head;  // elements from one to the next
  int group;
  __device__ T* row(int i) const { return data + i / group * token + i % group * head; }
};

// What the rows of a warp see. Element [m][half]: row 16 m + 8 half + g.
template <int kM>
struct RowSight {
  float scale, slope[kM][2];
  int place[kM][2];
  int back;                    // tokens before its own that a row sees
  int first_place, last_from;  // of all the rows: the least place, the largest first token
  bool biased;

  __device__ float probability(float score, float base) const { return exp2_fast(score - base); }

  // From products with the tokens from `first` on to scores in units of log 2.
  template <int kN>
  __device__ __forceinline__ void to_scores(Sums<kM, kN>& s, int first) const {
    int t = int(threadIdx.x) % 4;
    bool cut = first + kN * 8 - 1 > first_place || first < last_from;
#pragma unroll
    for (int n = 0; n < kN; ++n)
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          int token = first + n * 8 + 2 * t + e % 2, distance = token - place[m][e / 2];
          float x = s.at[m][n][e] * scale;
          if (biased) x = fmaf(slope[m][e / 2], float(distance), x);
          s.at[m][n][e] = cut && (distance > 0 || distance < -back) ? -INFINITY : x;
        }
  }
};

// Lets rows take kTiles tiles in that follow each other.
template <int kTiles, class T, class K, int kD, int kM>
__device__ __forceinline__ void take_tokens(Sums<kM, kD / 8>& sums, Softmax<kM>& softmax, const RowSight<kM>& sight,
                                            SharedRows<T, kD> own, int row, unsigned char* tiles, int first) {
  using Tile = TokenTile<K, kD>;
  Sums<kM, 2 * kTiles> s;
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    Tile tile{tiles + i * Tile::kBytes};
    add_scores(s, 2 * i, own, row, tile);
    if constexpr (sizeof(K) == 1) scale_columns(s, 2 * i, tile.key_scales());
  }
  sight.to_scores(s, first);
  softmax.take(s, sums, sight);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    Tile tile{tiles + i * Tile::kBytes};
    if constexpr (sizeof(K) == 1) scale_columns(s, 2 * i, tile.value_scales());
    add_values<T>(sums, s, 2 * i, tile);
  }
}

}  // namespace ds::cuda
