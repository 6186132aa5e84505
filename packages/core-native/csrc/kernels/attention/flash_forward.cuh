// The forward pass on the device: a block's queries meet tiles of keys, and the softmax is kept online in registers
// (Dao 2023, "FlashAttention-2", alg. 1). Keys and values take turns in two buffers of shared memory: the copy of one
// runs while the other is multiplied. Bound by the tensor cores and, close behind, by reading their operands from
// shared memory: hence 32 rows a warp where the registers allow it, so that each fragment of a key serves two products.
#pragma once
#include "attention_cached.h"
#include "sight.cuh"
#include "tile_lists.cuh"

namespace ds::cuda {

// How the keys lie: as rows, or as attention_cached.h says. Which keys there are: all, or what a layout lists.
enum class Keys { rows, cached, listed };

template <class T>
struct FlashForward {
  RowsOf<T> out;
  float* lse;  // [B, H, queries] or null
  RowsOf<const T> query, key, value;
  int64_t heads, batches;
  int D, queries, past;  // query i is token past + i
  int capacity;          // S of a cache
  bool aligned;
  float keep;  // 1 / (1 - p)
  Sight sight;
  BlockLists lists;
};

// kM: sixteens of queries of a warp; kOther: keys of a tile. 128 registers hold the sums of 128 columns for two
// sixteens.
template <class T, int kDim, Keys kKeys, bool kRare>
struct ForwardCut {
  static constexpr int kD = kDim, kWarps = 4, kThreads = kWarps * kWarp;
  static constexpr int kM = sizeof(T) == 2 && kD <= 128 && kKeys == Keys::rows && !kRare ? 2 : 1;
  static constexpr int kRows = kWarps * kM * 16, kOther = kD > 128 ? (kRare ? 16 : 32) : kD == 128 && kM == 2 ? 32 : 64;
  static constexpr int kTileBytes = (kRows + 2 * kOther) * kD * int(sizeof(T));
  static constexpr int kListBytes = kKeys == Keys::listed ? ListedTiles<kOther, kThreads>::kSharedBytes : 0;
  static constexpr int kSharedBytes = kTileBytes + kOther * 4 + kListBytes;
  static constexpr int kBlocks = kD <= 128 && kSharedBytes <= (110 << 10) ? 2 : 1;  // on a multiprocessor
};

// Copies keys of a cache, [D, 16] a group of tokens, to rows.
template <int kRows, int kThreads, class T, int kD>
__device__ void fetch_cached_keys(SharedRows<T, kD> to, const T* keys, int first, int end, int S, int D, bool aligned) {
  constexpr int kPacks = kGroup / kPack<T>;
  for (int i = int(threadIdx.x); i < kRows / kGroup * kD * kPacks; i += kThreads) {
    int group = i / (kD * kPacks), d = i / kPacks % kD, token = i % kPacks * kPack<T>, start = first + group * kGroup;
    int width = S - start < kGroup ? S - start : kGroup;
    const T* source = keys + int64_t(start) * D + int64_t(d) * width + token;
    Pack<T> pack{};
    if (d < D && start + token < end) {
      if (aligned && width == kGroup) {
        pack = load<kPack<T>>(source);
      } else {
        for (int k = 0; k < kPack<T>; ++k)
          if (start + token + k < end) pack.at[k] = source[k];
      }
    }
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      *to.element(group * kGroup + token + k, d) = start + token + k < end ? pack.at[k] : T{};
  }
}

// The softmax of a block's rows, kept online. Rows as in Sums.
template <int kM>
struct Softmax {
  float largest[kM][2], total[kM][2];  // total: this thread's columns only, until finish()

  __device__ Softmax() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) largest[m][half] = -INFINITY, total[m][half] = 0;
  }

  // From scores to probabilities relative to the new maximum; sums of earlier ones are brought to it.
  template <int kN, int kColumns, class Sight>
  __device__ __forceinline__ void take(Sums<kM, kN>& s, Sums<kM, kColumns>& sums, const Sight& sight) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float after = largest[m][half];
#pragma unroll
        for (int n = 0; n < kN; ++n) after = fmaxf(after, fmaxf(s.at[m][n][2 * half], s.at[m][n][2 * half + 1]));
        after = fmaxf(after, __shfl_xor_sync(kAllLanes, after, 1));
        after = fmaxf(after, __shfl_xor_sync(kAllLanes, after, 2));
        float base = after == -INFINITY ? 0.0f : after;  // no key seen yet: -inf - 0 instead of -inf + inf
        float shrink = sight.probability(largest[m][half], base), sum = 0;
        largest[m][half] = after;
#pragma unroll
        for (int n = 0; n < kN; ++n)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s.at[m][n][e] = sight.probability(s.at[m][n][e], base);
            sum += s.at[m][n][e];
          }
        total[m][half] = total[m][half] * shrink + sum;
#pragma unroll
        for (int d = 0; d < kColumns; ++d)
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) sums.at[m][d][e] *= shrink;
      }
  }

  __device__ void finish() {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        total[m][half] += __shfl_xor_sync(kAllLanes, total[m][half], 1);
        total[m][half] += __shfl_xor_sync(kAllLanes, total[m][half], 2);
      }
  }
};

// kRare: with dropout or an added bias, which cost registers.
template <class T, class Cut, Keys kKeys, bool kRare>
__global__ void __launch_bounds__(Cut::kThreads, Cut::kBlocks) flash_forward(FlashForward<T> op) {
  constexpr int kD = Cut::kD, kM = Cut::kM, kN = Cut::kOther / 8, kRows = Cut::kRows, kOther = Cut::kOther;
  using Shared = SharedRows<T, kD>;
  DS_DYN_SHARED(T, shared);
  Shared queries{shared}, keys{shared + kRows * kD}, values{shared + (kRows + kOther) * kD};
  auto* positions = reinterpret_cast<float*>(shared + (kRows + 2 * kOther) * kD);  // of the tile's keys

  // Heads side by side, and the last queries first: with causality they see the most keys.
  int64_t heads = op.heads * op.batches, bh = int64_t(blockIdx.x) % heads;
  int b = int(bh / op.heads), h = int(bh % op.heads);
  int first = int((int64_t(gridDim.x) - 1 - blockIdx.x) / heads) * kRows;
  int lane = int(threadIdx.x) % kWarp, row = int(threadIdx.x) / kWarp * kM * 16, g = lane / 4;
  HeadSight sight(op.sight, b, h, int(op.heads));
  HeadRows<const T> key = op.key.of(b, h), value = op.value.of(b, h);

  fetch_rows<kRows, Cut::kThreads>(queries, op.query.of(b, h), op.queries, op.D, op.aligned,
                                   [&](int r) { return first + r; });
  copy_async_commit();
  auto fetch = [&](Shared to, const HeadRows<const T>& from, const auto& place) {
    fetch_rows<kOther, Cut::kThreads>(to, from, sight.keys(), op.D, op.aligned, [&](int r) { return place.token(r); });
  };
  auto fetch_keys = [&](const auto& place) {
    if constexpr (kKeys == Keys::cached)
      fetch_cached_keys<kOther, Cut::kThreads>(keys, key.data, place.token(0), sight.keys(), op.capacity, op.D,
                                               op.aligned);
    else
      fetch(keys, key, place);
    copy_async_commit();
  };

  auto make_tiles = [&] {
    if constexpr (kKeys == Keys::listed) {
      auto* lists = reinterpret_cast<uint32_t*>(positions + kOther);
      return ListedTiles<kOther, Cut::kThreads>(op.lists, h, first, kRows, false, sight.causal(), lists);
    } else {
      float far = reach(op.sight, sight, bh);
      int begin = far < INFINITY ? sight.first_at(sight.position(op.past + first) - far) / kOther * kOther : 0;
      int end = op.past + first + kRows;
      return RangeTiles<kOther>(begin, sight.causal() && end < sight.keys() ? end : sight.keys());
    }
  };
  auto tiles = make_tiles();

  Sums<kM, kD / 8> sums;
  Softmax<kM> softmax;
  typename decltype(tiles)::Place place;
  bool more = tiles.next(place);
  if (more) fetch_keys(place);
  while (more) {
    if (sight.has_positions())
      for (int r = int(threadIdx.x); r < kOther; r += Cut::kThreads) positions[r] = sight.key_position(place.token(r));
    copy_async_wait<0>();
    __syncthreads();  // the keys are there, and nobody reads the last values any more
    fetch(values, value, place);
    copy_async_commit();

    int own = op.past + first + row;
    uint32_t met = place.met_by(first, row);
    Sums<kM, kN> s;
    if (met) {
      add_products(s, queries, row, keys);
      to_scores<false, kRare>(s, sight, own + g, place, positions, met, is_cut<false>(sight, own, kM * 16, place, met));
    }
    auto now = place;
    more = tiles.next(place);
    copy_async_wait<0>();
    __syncthreads();  // the values are there, and nobody reads the keys and positions any more
    if (more) fetch_keys(place);
    if (!met) continue;
    softmax.take(s, sums, sight);
    if (kRare && sight.drops()) {
      uint32_t kept[kM];
      draw<false, kN>(kept, sight, own + g, now);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int i = 0; i < kN * 4; ++i)
          if (!(kept[m] >> i & 1)) s.at[m][i / 4][i % 4] = 0;
    }
    add_weighted(sums, s, values);
  }

  softmax.finish();
  float factor[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = softmax.total[m][half];
      int query = first + row + m * 16 + half * 8 + g;
      factor[m][half] = total == 0 ? 0 : op.keep / total;
      if (op.lse && lane % 4 == 0 && query < op.queries)
        op.lse[bh * op.queries + query] = total == 0 ? -INFINITY : softmax.largest[m][half] * kLn2 + logf(total);
    }
  // Where no tile came, the queries may still be on their way.
  copy_async_wait<0>();
  __syncthreads();
  write_rows<T, kD, kM>(sums, factor, queries, row, op.out.of(b, h), first + row, op.queries, op.D, op.aligned);
}

template <Keys kKeys, class T>
void launch_forward(const FlashForward<T>& op, CudaContext& context) {
  if (op.queries == 0 || op.batches == 0) return;
  for_width(op.D, context, [&]<int kD> {
    auto launch = [&]<bool kRare> {
      using Cut = ForwardCut<T, kD, kKeys, kRare>;
      dim3 grid(unsigned((op.queries + Cut::kRows - 1) / Cut::kRows * op.heads * op.batches));
      DS_LAUNCH((flash_forward<T, Cut, kKeys, kRare>), grid, Cut::kThreads, Cut::kSharedBytes, context, op);
    };
    if constexpr (kKeys != Keys::cached)
      if (op.sight.drops || op.sight.added) return launch.template operator()<true>();
    launch.template operator()<false>();
  });
}

}  // namespace ds::cuda
