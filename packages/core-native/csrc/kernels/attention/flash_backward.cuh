// The backward pass on the device, in two kernels: queries gather dq over tiles of keys, keys gather dk and dv over
// tiles of queries. Scores are computed in both, seven products where one kernel would need five, and in return nothing
// is added by two blocks: no atomics, no partial sums in memory, a fixed order (see Dao 2023, "FlashAttention-2", alg.
// 2). Both tensors of a tile lie in one of two stages, so that the next tile is copied while this one is multiplied.
// Bound by reading operands from shared memory.
#pragma once
#include "sight.cuh"

namespace ds::cuda {

template <class T>
struct FlashBackward {
  RowsOf<T> dquery, dkey, dvalue;
  RowsOf<const T> query, key, value, dout;
  const float *lse, *delta;  // [B, H, T]
  int64_t heads, batches;
  int D;
  bool aligned;
  float keep, scale;  // 1 / (1 - p); the scale itself
  Sight sight;
  BlockLists lists;
};

// kM: sixteens of own rows of a warp; kOther: rows of a tile.
template <class T, int kDim, bool kOwnKeys, bool kListed, bool kRare>
struct BackwardCut {
  static constexpr int kD = kDim;
  static constexpr bool kHalf = sizeof(T) == 2;
  static constexpr int kWarps = kD > 128 && !kHalf ? 2 : 4, kThreads = kWarps * kWarp;
  static constexpr int kM = kHalf && kD == 64 && !kListed && !kRare ? 2 : 1, kRows = kWarps * kM * 16;
  // Keys gather two sums, of which each thread holds 4 kM kD / 8 numbers: less is left for the scores.
  static constexpr int kOther = (kD <= 64 ? 64 / kM : (kHalf ? 8192 : 4096) / kD) /
                                (kOwnKeys && (kD == 128 || (!kHalf && kRare)) && kD <= 128 ? 2 : 1);
  static constexpr int kTileBytes = (2 * kRows + 4 * kOther) * kD * int(sizeof(T));
  static constexpr int kListBytes = kListed ? ListedTiles<kOther, kThreads>::kSharedBytes : 0;
  static constexpr int kSharedBytes = kTileBytes + 2 * 3 * kOther * 4 + kListBytes;
  static constexpr int kBlocks = kD <= 128 && kSharedBytes <= (110 << 10) ? 2 : 1;  // on a multiprocessor
};

// Two stages of two tiles and what one number says of each of their rows, behind two tiles of own rows.
template <class T, class Cut>
struct BackwardShared {
  using Rows = SharedRows<T, Cut::kD>;
  T* data;
  __device__ Rows own(int which) const { return {data + which * Cut::kRows * Cut::kD}; }
  __device__ Rows other(int stage, int which) const {
    return {data + (2 * Cut::kRows + (2 * stage + which) * Cut::kOther) * Cut::kD};
  }
  __device__ float* numbers(int stage, int which) const {
    return reinterpret_cast<float*>(data + (2 * Cut::kRows + 4 * Cut::kOther) * Cut::kD) +
           (3 * stage + which) * Cut::kOther;
  }
  __device__ uint32_t* lists() const { return reinterpret_cast<uint32_t*>(numbers(2, 0)); }
};

// lse in units of log 2; of a query that sees nothing, or is none, infinity: every probability becomes 0.
__device__ __forceinline__ float backward_lse(const float* lse, int64_t head_row, int query, int queries) {
  float x = query < queries ? lse[head_row + query] : -INFINITY;
  return x == -INFINITY ? INFINITY : x * kLog2E;
}

template <class T, class Cut, bool kListed, bool kRare>
__global__ void __launch_bounds__(Cut::kThreads, Cut::kBlocks) flash_backward_queries(FlashBackward<T> op) {
  constexpr int kD = Cut::kD, kM = Cut::kM, kN = Cut::kOther / 8, kRows = Cut::kRows, kOther = Cut::kOther;
  DS_DYN_SHARED(T, memory);
  BackwardShared<T, Cut> shared{memory};
  int64_t heads = op.heads * op.batches, bh = int64_t(blockIdx.x) % heads, head_row = bh * op.sight.keys;
  int b = int(bh / op.heads), h = int(bh % op.heads);
  int first = int((int64_t(gridDim.x) - 1 - blockIdx.x) / heads) * kRows;  // the last queries see the most keys
  int lane = int(threadIdx.x) % kWarp, row = int(threadIdx.x) / kWarp * kM * 16, g = lane / 4, own = first + row;
  HeadSight sight(op.sight, b, h, int(op.heads));

  auto fetch_own = [&](int which, const RowsOf<const T>& from) {
    fetch_rows<kRows, Cut::kThreads>(shared.own(which), from.of(b, h), sight.keys(), op.D, op.aligned,
                                     [&](int r) { return first + r; });
  };
  fetch_own(0, op.query);
  fetch_own(1, op.dout);
  auto fetch = [&](int stage, const auto& place) {
    auto token = [&](int r) { return place.token(r); };
    fetch_rows<kOther, Cut::kThreads>(shared.other(stage, 0), op.key.of(b, h), sight.keys(), op.D, op.aligned, token);
    fetch_rows<kOther, Cut::kThreads>(shared.other(stage, 1), op.value.of(b, h), sight.keys(), op.D, op.aligned, token);
    copy_async_commit();
    if (!sight.has_positions()) return;
    for (int r = int(threadIdx.x); r < kOther; r += Cut::kThreads)
      shared.numbers(stage, 0)[r] = sight.key_position(token(r));
  };
  auto make_tiles = [&] {
    if constexpr (kListed) {
      return ListedTiles<kOther, Cut::kThreads>(op.lists, h, first, kRows, false, sight.causal(), shared.lists());
    } else {
      float far = reach(op.sight, sight, bh);
      int begin = far < INFINITY ? sight.first_at(sight.position(first) - far) / kOther * kOther : 0;
      int end = first + kRows;
      return RangeTiles<kOther>(begin, sight.causal() && end < sight.keys() ? end : sight.keys());
    }
  };
  auto tiles = make_tiles();

  float lse[kM][2], delta[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int query = own + m * 16 + half * 8 + g;
      lse[m][half] = backward_lse(op.lse, head_row, query, sight.keys());
      delta[m][half] = query < sight.keys() ? op.delta[head_row + query] : 0;
    }

  Sums<kM, kD / 8> dq;
  typename decltype(tiles)::Place place;
  bool more = tiles.next(place);
  if (more) fetch(0, place);
  for (int stage = 0; more; stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // the tile is there, and nobody reads the other stage any more
    auto now = place;
    more = tiles.next(place);
    if (more) fetch(stage ^ 1, place);
    uint32_t met = now.met_by(first, row);
    if (!met) continue;

    Sums<kM, kN> s, dp;
    add_products(s, shared.own(0), row, shared.other(stage, 0));
    to_scores<false, kRare>(s, sight, own + g, now, shared.numbers(stage, 0), met,
                            is_cut<false>(sight, own, kM * 16, now, met));
    add_products(dp, shared.own(1), row, shared.other(stage, 1));
    uint32_t kept[kM] = {};
    if (kRare && sight.drops()) draw<false, kN>(kept, sight, own + g, now);
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int i = 0; i < kN * 4; ++i) {
        float& x = s.at[m][i / 4][i % 4];
        float d = dp.at[m][i / 4][i % 4];
        if (kRare && sight.drops()) d = kept[m] >> i & 1 ? d * op.keep : 0;
        x = sight.probability(x, lse[m][i % 4 / 2]) * (d - delta[m][i % 4 / 2]);
      }
    add_weighted(dq, s, shared.other(stage, 0));
  }

  float factor[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m) factor[m][0] = factor[m][1] = op.scale;
  // Where no tile came, the own rows may still be on their way.
  copy_async_wait<0>();
  __syncthreads();
  write_rows<T, kD, kM>(dq, factor, shared.own(0), row, op.dquery.of(b, h), own, sight.keys(), op.D, op.aligned);
}

// kParts: 1 dv, 2 dk, 3 both; the sums of both do not fit into the registers beside each other for the widest heads.
template <class T, class Cut, bool kListed, bool kRare, int kParts>
__global__ void __launch_bounds__(Cut::kThreads, Cut::kBlocks) flash_backward_keys(FlashBackward<T> op) {
  constexpr int kD = Cut::kD, kM = Cut::kM, kN = Cut::kOther / 8, kRows = Cut::kRows, kOther = Cut::kOther;
  constexpr bool kValues = kParts & 1, kKeys = kParts & 2;
  DS_DYN_SHARED(T, memory);
  BackwardShared<T, Cut> shared{memory};
  int64_t heads = op.heads * op.batches, bh = int64_t(blockIdx.x) % heads, head_row = bh * op.sight.keys;
  int b = int(bh / op.heads), h = int(bh % op.heads);
  int first = int(blockIdx.x / heads) * kRows;  // the first keys are seen by the most queries
  int lane = int(threadIdx.x) % kWarp, row = int(threadIdx.x) / kWarp * kM * 16, g = lane / 4, t = lane % 4;
  int own = first + row;
  HeadSight sight(op.sight, b, h, int(op.heads));

  auto fetch_own = [&](int which, const RowsOf<const T>& from) {
    fetch_rows<kRows, Cut::kThreads>(shared.own(which), from.of(b, h), sight.keys(), op.D, op.aligned,
                                     [&](int r) { return first + r; });
  };
  fetch_own(0, op.key);
  fetch_own(1, op.value);
  auto fetch = [&](int stage, const auto& place) {
    auto token = [&](int r) { return place.token(r); };
    fetch_rows<kOther, Cut::kThreads>(shared.other(stage, 0), op.query.of(b, h), sight.keys(), op.D, op.aligned, token);
    fetch_rows<kOther, Cut::kThreads>(shared.other(stage, 1), op.dout.of(b, h), sight.keys(), op.D, op.aligned, token);
    copy_async_commit();
    for (int r = int(threadIdx.x); r < kOther; r += Cut::kThreads) {
      int query = token(r);
      shared.numbers(stage, 0)[r] = sight.biased() ? sight.position(query) : 0;
      shared.numbers(stage, 1)[r] = backward_lse(op.lse, head_row, query, sight.keys());
      shared.numbers(stage, 2)[r] = query < sight.keys() ? op.delta[head_row + query] : 0;
    }
  };
  auto make_tiles = [&] {
    if constexpr (kListed) {
      return ListedTiles<kOther, Cut::kThreads>(op.lists, h, first, kRows, sight.causal(), false, shared.lists());
    } else {
      float far = reach(op.sight, sight, bh);
      int end = far < INFINITY ? sight.first_at(sight.position(first + kRows - 1) + far + 1) : sight.keys();
      return RangeTiles<kOther>(sight.causal() ? first / kOther * kOther : 0, end);
    }
  };
  auto tiles = make_tiles();

  Sums<kM, kKeys ? kD / 8 : 1> dk;
  Sums<kM, kValues ? kD / 8 : 1> dv;
  typename decltype(tiles)::Place place;
  bool more = tiles.next(place);
  if (more) fetch(0, place);
  for (int stage = 0; more; stage ^= 1) {
    copy_async_wait<0>();
    __syncthreads();  // the tile is there, and nobody reads the other stage any more
    auto now = place;
    more = tiles.next(place);
    if (more) fetch(stage ^ 1, place);
    uint32_t met = now.met_by(first, row);
    if (!met) continue;

    Sums<kM, kN> s;
    add_products(s, shared.own(0), row, shared.other(stage, 0));
    to_scores<true, kRare>(s, sight, own + g, now, shared.numbers(stage, 0), met,
                           is_cut<true>(sight, own, kM * 16, now, met));
    uint32_t kept[kM] = {};
    if (kRare && sight.drops()) draw<true, kN>(kept, sight, own + g, now);
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      Pack<float, 2> lse = load<2>(shared.numbers(stage, 1) + n * 8 + 2 * t);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) s.at[m][n][e] = sight.probability(s.at[m][n][e], lse.at[e % 2]);
    }
    if constexpr (kValues) {
      if (kRare && sight.drops()) {
        Sums<kM, kN> p = s;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int i = 0; i < kN * 4; ++i)
            if (!(kept[m] >> i & 1)) p.at[m][i / 4][i % 4] = 0;
        add_weighted(dv, p, shared.other(stage, 1));
      } else {
        add_weighted(dv, s, shared.other(stage, 1));
      }
    }
    if constexpr (kKeys) {
      Sums<kM, kN> dp;
      add_products(dp, shared.own(1), row, shared.other(stage, 1));
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        Pack<float, 2> delta = load<2>(shared.numbers(stage, 2) + n * 8 + 2 * t);
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            float d = dp.at[m][n][e];
            if (kRare && sight.drops()) d = kept[m] >> (4 * n + e) & 1 ? d * op.keep : 0;
            s.at[m][n][e] *= d - delta.at[e % 2];
          }
      }
      add_weighted(dk, s, shared.other(stage, 0));
    }
  }

  copy_async_wait<0>();
  __syncthreads();
  float factor[kM][2];
  auto write = [&](const auto& sums, const RowsOf<T>& to, float f, int which) {
#pragma unroll
    for (int m = 0; m < kM; ++m) factor[m][0] = factor[m][1] = f;
    write_rows<T, kD, kM>(sums, factor, shared.own(which), row, to.of(b, h), own, sight.keys(), op.D, op.aligned);
  };
  if constexpr (kKeys) write(dk, op.dkey, op.scale, 0);
  if constexpr (kValues) write(dv, op.dvalue, op.keep, 1);
}

template <bool kListed, class T>
void launch_backward(const FlashBackward<T>& op, const BlockLists& by_columns, CudaContext& context) {
  if (op.sight.keys == 0 || op.batches == 0) return;
  for_width(op.D, context, [&]<int kD> {
    auto launch = [&]<bool kRare> {
      using Queries = BackwardCut<T, kD, false, kListed, kRare>;
      using Cut = BackwardCut<T, kD, true, kListed, kRare>;
      static_assert(Queries::kRows == Cut::kRows);
      dim3 grid(unsigned((op.sight.keys + Cut::kRows - 1) / Cut::kRows * op.heads * op.batches));
      DS_LAUNCH((flash_backward_queries<T, Queries, kListed, kRare>), grid, Queries::kThreads, Queries::kSharedBytes,
                context, op);
      FlashBackward<T> transposed = op;
      transposed.lists = by_columns;
      if constexpr (kD <= 128) {
        DS_LAUNCH((flash_backward_keys<T, Cut, kListed, kRare, 3>), grid, Cut::kThreads, Cut::kSharedBytes, context,
                  transposed);
      } else {
        DS_LAUNCH((flash_backward_keys<T, Cut, kListed, kRare, 1>), grid, Cut::kThreads, Cut::kSharedBytes, context,
                  transposed);
        DS_LAUNCH((flash_backward_keys<T, Cut, kListed, kRare, 2>), grid, Cut::kThreads, Cut::kSharedBytes, context,
                  transposed);
      }
    };
    if (op.sight.drops || op.sight.added) return launch.template operator()<true>();
    launch.template operator()<false>();
  });
}

}  // namespace ds::cuda
