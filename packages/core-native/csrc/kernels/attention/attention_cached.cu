// The new keys and values go into the cache first. Few queries: the keys are split over blocks of kSpan, a warp takes
// every eighth group of 16, and a second kernel puts the parts together in their order; bound by reading the cache
// once, in lines of 128 bytes, as its order of keys is made for. Many queries: attention's own tiles.
#include "attention_cached.h"

#include "../common/dispatch.h"
#include "fused_rows.cuh"

namespace ds::cuda {
namespace {

// The new tokens' rows to their places. One thread an element, neighbours in the source.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads) append(RowsOf<const T> key, RowsOf<const T> value, T* keys, T* values,
                                                   int64_t H, int T_, int past, int64_t S, int D, int64_t count) {
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += int64_t(gridDim.x) * kThreads) {
    int64_t d = i % D, h = i / D % H, t = i / D / H % T_, b = i / D / H / T_, head = (b * H + h) * S * D, j = past + t;
    keys[head + cached_key(j, d, S, D)] = key.of(b, h).row(t)[d];
    values[head + j * D + d] = value.of(b, h).row(t)[d];
  }
}

constexpr int kSpan = 256;      // keys of a part, whatever the batch: a query's bits must not depend on its neighbours
constexpr int kFewQueries = 4;  // of a block
constexpr int kFewWarps = 8, kFewThreads = kFewWarps * kWarp;
constexpr int64_t kFewLimit = 16;  // new tokens of a call; beyond, tiles of 64 queries waste less

template <class T>
struct FewQueries {
  RowsOf<const T> query;
  const T *keys, *values;  // [B, H, S, D]
  float* parts;            // [B, H, T, parts, D + 2]: sums, then the largest score and the total
  int64_t heads;
  int D, queries, past, capacity, part_count;
  bool aligned;
  Sight sight;
};

// Scores of the part's keys for the block's queries, in shared memory.
// A warp takes a group of 16 keys: eight lanes for two keys each, and four of these for every fourth element of D.
template <class T, int kQueries>
__device__ __forceinline__ void score_group(const FewQueries<T>& op, const T* keys, int start, const float* query,
                                            float (&dot)[kQueries][2]) {
  int lane = int(threadIdx.x) % kWarp, pair = lane % 8, width = op.capacity - start < 16 ? op.capacity - start : 16;
  const T* group = keys + int64_t(start) * op.D + pair * 2;
  bool whole = op.aligned && width == 16;
#pragma unroll
  for (int q = 0; q < kQueries; ++q) dot[q][0] = dot[q][1] = 0;
#pragma unroll 4
  for (int d = lane / 8; d < op.D; d += 4) {
    Pack<T, 2> two{};
    if (whole) {
      two = load<2>(group + int64_t(d) * 16);
    } else {
      for (int k = 0; k < 2; ++k)
        if (pair * 2 + k < width) two.at[k] = group[int64_t(d) * width + k];
    }
#pragma unroll
    for (int q = 0; q < kQueries; ++q)
#pragma unroll
      for (int k = 0; k < 2; ++k) dot[q][k] = fmaf(query[q * op.D + d], to_f32(two.at[k]), dot[q][k]);
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q)
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      dot[q][k] += __shfl_xor_sync(kAllLanes, dot[q][k], 8);
      dot[q][k] += __shfl_xor_sync(kAllLanes, dot[q][k], 16);
    }
}

// One part of the keys for up to kQueries queries of one head.
template <class T, int kQueries>
__global__ void __launch_bounds__(kFewThreads) attend_few(FewQueries<T> op) {
  DS_DYN_SHARED(float, query);  // [kQueries, D], then the warps' sums [kFewWarps, kQueries, D]
  DS_SHARED(float[kQueries][kSpan], scores);
  DS_SHARED(float[kQueries][2], softmax);  // the largest score and the total
  int D = op.D, warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  int64_t bh = int64_t(blockIdx.x) / op.part_count, b = bh / op.heads, h = bh % op.heads;
  int part = int(int64_t(blockIdx.x) % op.part_count), first_query = int(blockIdx.y) * kQueries;
  int first = part * kSpan, last_query = first_query + kQueries < op.queries ? first_query + kQueries : op.queries;
  int end = op.past + last_query < first + kSpan ? op.past + last_query : first + kSpan;  // of the keys that are seen
  HeadSight sight(op.sight, int(b), int(h), int(op.heads));
  const T *keys = op.keys + bh * op.capacity * D, *values = op.values + bh * op.capacity * D;

  auto rows = op.query.of(b, h);
  for (int i = int(threadIdx.x); i < kQueries * D; i += kFewThreads) {
    int q = first_query + i / D;
    query[i] = q < op.queries ? to_f32(rows.row(q)[i % D]) : 0;
  }
  __syncthreads();
  for (int start = first + warp * 16; start < first + kSpan; start += kFewWarps * 16) {
    float dot[kQueries][2] = {};
    if (start < end) score_group<T, kQueries>(op, keys, start, query, dot);
    if (lane >= 8) continue;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      int key = start + lane * 2 + k;
      float position = key < end ? sight.key_position(key) : -INFINITY;
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        int token = op.past + first_query + q;
        float x = dot[q][k] * sight.scale();
        if (sight.biased()) x = fmaf(sight.slope, position - sight.position(token), x);
        scores[q][key - first] = position == -INFINITY || key > token ? -INFINITY : x;
      }
    }
  }
  __syncthreads();

  // A warp a query.
  if (warp < kQueries) {
    float largest = -INFINITY, total = 0;
#pragma unroll
    for (int i = lane; i < kSpan; i += kWarp) largest = Max()(scores[warp][i], largest);
    largest = warp_reduce<Max>(largest);
    float base = largest == -INFINITY ? 0 : largest;
#pragma unroll
    for (int i = lane; i < kSpan; i += kWarp) {
      float p = sight.probability(scores[warp][i], base);
      scores[warp][i] = p;
      total += p;
    }
    total = warp_reduce<Sum>(total);
    if (lane == 0) softmax[warp][0] = largest, softmax[warp][1] = total;
  }
  __syncthreads();

  // Values: a warp takes every eighth key, its lanes packs of D; then the warps' sums in order.
  float* by_warp = query + kQueries * D;
  auto weigh = [&]<int N>() {
    for (int d = lane * N; d < D; d += kWarp * N) {
      float sum[kQueries][N] = {};
#pragma unroll 4
      for (int key = first + warp; key < end; key += kFewWarps) {
        Pack<T, N> value = load<N>(values + int64_t(key) * D + d);
#pragma unroll
        for (int q = 0; q < kQueries; ++q) {
          float p = scores[q][key - first];
#pragma unroll
          for (int k = 0; k < N; ++k) sum[q][k] = fmaf(p, to_f32(value.at[k]), sum[q][k]);
        }
      }
#pragma unroll
      for (int q = 0; q < kQueries; ++q)
#pragma unroll
        for (int k = 0; k < N; ++k) by_warp[(warp * kQueries + q) * D + d + k] = sum[q][k];
    }
  };
  if (op.aligned && D % 2 == 0)
    weigh.template operator()<2>();
  else
    weigh.template operator()<1>();
  __syncthreads();
  for (int i = int(threadIdx.x); i < kQueries * (D + 2); i += kFewThreads) {
    int q = i / (D + 2), d = i % (D + 2);
    if (first_query + q >= op.queries) continue;
    float x = d < D ? 0 : softmax[q][d - D];
    for (int w = 0; d < D && w < kFewWarps; ++w) x += by_warp[(w * kQueries + q) * D + d];
    op.parts[((bh * op.queries + first_query + q) * op.part_count + part) * (D + 2) + d] = x;
  }
}

// Puts the parts of a query together, in their order; one block a query of a head.
template <class T, int kThreads>
__global__ void __launch_bounds__(kThreads)
    join_parts(const float* parts, RowsOf<T> out, int64_t heads, int queries, int part_count, int past, int D) {
  int64_t row = blockIdx.x, bh = row / queries, i = row % queries, b = bh / heads, h = bh % heads;
  const float* own = parts + row * part_count * (D + 2);
  // Parts behind the query's own token hold nothing for it, and must not count: their number depends on what follows.
  int count = int((past + i) / kSpan) + 1;
  float largest = -INFINITY;
  for (int p = 0; p < count; ++p) largest = Max()(own[p * (D + 2) + D], largest);
  float base = largest == -INFINITY ? 0 : largest, total = 0;
  for (int p = 0; p < count; ++p) total += own[p * (D + 2) + D + 1] * exp2_fast(own[p * (D + 2) + D] - base);
  for (int d = int(threadIdx.x); d < D; d += kThreads) {
    float sum = 0;
    for (int p = 0; p < count; ++p) sum += own[p * (D + 2) + d] * exp2_fast(own[p * (D + 2) + D] - base);
    out.of(b, h).row(i)[d] = from_f32<T>(total == 0 ? 0 : sum / total);
  }
}

template <class T, int kQueries>
void launch_few(const FewQueries<T>& op, int64_t batches, RowsOf<T> out, CudaContext& context) {
  dim3 grid(unsigned(batches * op.heads * op.part_count), unsigned((op.queries + kQueries - 1) / kQueries));
  size_t shared = size_t(kQueries) * (1 + kFewWarps) * size_t(op.D) * 4;
  DS_LAUNCH((attend_few<T, kQueries>), grid, kFewThreads, shared, context, op);
  DS_LAUNCH((join_parts<T, 128>), unsigned(batches * op.heads * op.queries), 128, 0, context, op.parts, out, op.heads,
            op.queries, op.part_count, op.past, op.D);
}

}  // namespace

void attention_cached(const AttentionCached& op, CudaContext& context) {
  AttentionShape s{op.qkv.dim(0), op.qkv.dim(1), op.heads, op.qkv.dim(2) / (3 * op.heads)};
  int64_t S = op.k_cache.dim(2), keys = op.past + s.T, count = s.B * s.T * s.H * s.D;
  if (count == 0) return;
  bool few = s.T <= kFewLimit;
  int64_t parts = few ? (keys + kSpan - 1) / kSpan : 0;
  PassMemory memory(context, op.slopes && op.mask ? s.B * keys : 0, 0, s.B * s.H * s.T * parts * (s.D + 2));
  Sight sight{};
  if (op.slopes) sight.slopes = op.slopes.as<const float>();
  if (op.mask) sight.mask = op.mask.as<const uint8_t>(), sight.mask_stride = op.mask.dim(1);
  sight.positions = memory.positions;
  sight.keys = int(keys), sight.scale = float(op.scale) * kLog2E, sight.causal = true;
  if (memory.positions)
    DS_LAUNCH(find_positions<256>, unsigned(s.B), 256, 0, context, sight.mask, sight.mask_stride, memory.positions,
              int(keys));
  dispatch_float(op.qkv.dtype, [&]<class T>() {
    T *k_cache = op.k_cache.as<T>(), *v_cache = op.v_cache.as<T>();
    DS_LAUNCH((append<T, 256>), strided_blocks(count, 256, context), 256, 0, context, fused_rows<const T>(op.qkv, s, 1),
              fused_rows<const T>(op.qkv, s, 2), k_cache, v_cache, s.H, int(s.T), int(op.past), S, int(s.D), count);
    bool aligned = aligned_rows<T>(s.D, {op.qkv.data, op.out.data, k_cache, v_cache});
    auto query = fused_rows<const T>(op.qkv, s, 0);
    if (few) {
      FewQueries<T> pass{query,    k_cache,      v_cache, memory.more, s.H,     int(s.D),
                         int(s.T), int(op.past), int(S),  int(parts),  aligned, sight};
      if (s.T == 1) return launch_few<T, 1>(pass, s.B, plain_rows<T>(op.out, s), context);
      return launch_few<T, kFewQueries>(pass, s.B, plain_rows<T>(op.out, s), context);
    }
    RowsOf<const T> key{k_cache, s.H * S * s.D, S * s.D, 0}, value{v_cache, s.H * S * s.D, S * s.D, s.D};
    FlashForward<T> pass{};
    pass.out = plain_rows<T>(op.out, s);
    pass.query = query, pass.key = key, pass.value = value;
    pass.heads = s.H, pass.batches = s.B, pass.D = int(s.D), pass.queries = int(s.T);
    pass.past = int(op.past), pass.capacity = int(S);
    pass.aligned = aligned, pass.keep = 1, pass.sight = sight;
    launch_forward<Keys::cached>(pass, context);
  });
}

DS_CUDA_KERNEL(AttentionCached, attention_cached)

}  // namespace ds::cuda
