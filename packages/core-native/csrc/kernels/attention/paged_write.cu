// A warp takes one head of one row: it stays in registers from its one read to its one write. Bound by memory: the
// queries' and values' accesses are whole lines; keys of neighbouring tokens meet in the lines of their page, in L2.
#include "paged_write.h"

#include "paged_rows.cuh"

namespace ds::cuda {
namespace {

constexpr int kWriteWarps = 8;
constexpr int kEach = int(kMostHeadSize) / kWarp;  // elements of a lane: d = lane + i * kWarp

template <class T, class K>
struct Write {
  T* q;
  PagesOf<K> pages;
  const T* qkv;
  Rows rows;
  const float* table;
  const void *query_norm, *key_norm;
  bool query_whole, key_whole, float_weights, interleaved;
  int heads, half;
  int64_t positions;
  float eps;
};

// The elements of a head that this lane holds, 0 beyond D.
using Head = float[kEach];

template <class F>
__device__ __forceinline__ void for_own(int D, F&& fn) {
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    int d = int(threadIdx.x) % kWarp + i * kWarp;
    if (d < D) fn(i, d);
  }
}

// Over `n` elements of a row in global memory, for a norm that is not of one head.
template <class T>
__device__ float row_square_sum(const T* x, int n) {
  float squares = 0;
  for (int i = int(threadIdx.x) % kWarp; i < n; i += kWarp) squares = fmaf(to_f32(x[i]), to_f32(x[i]), squares);
  return warp_reduce<Sum>(squares);
}

template <class T, class K>
__device__ void norm(const Write<T, K>& op, Head& x, const T* all, int h, int heads, const void* weights, bool whole) {
  int D = op.pages.D, n = whole ? heads * D : D;
  float squares = 0;
  if (whole) {
    squares = row_square_sum(all, n);
  } else {
    for_own(D, [&](int i, int) { squares = fmaf(x[i], x[i], squares); });
    squares = warp_reduce<Sum>(squares);
  }
  float rstd = 1.0f / sqrtf(squares / float(n) + op.eps);
  int first = whole ? h * D : 0;
  for_own(D, [&](int i, int d) {
    float weight = op.float_weights ? static_cast<const float*>(weights)[first + d]
                                    : to_f32(static_cast<const T*>(weights)[first + d]);
    x[i] = x[i] * rstd * weight;
  });
}

// Pairs stand in different lanes: through the warp's own row of shared memory.
template <class T, class K>
__device__ void rotate(const Write<T, K>& op, Head& x, int64_t position, float* shared) {
  const float *cosine = op.table + position * 2 * op.half, *sine = cosine + op.half;
  int D = op.pages.D;
  for_own(D, [&](int i, int d) { shared[d] = x[i]; });
  __syncwarp();
  for_own(2 * op.half, [&](int i, int d) {
    int pair = op.interleaved ? d / 2 : d < op.half ? d : d - op.half;
    bool second = op.interleaved ? d % 2 == 1 : d >= op.half;
    float other = shared[op.interleaved ? d ^ 1 : second ? d - op.half : d + op.half];
    x[i] = fmaf(x[i], cosine[pair], (second ? other : -other) * sine[pair]);
  });
  __syncwarp();
}

// Writes a head to the places at(d).
template <class K, class At>
__device__ void write_head(const Head& x, int D, K* to, float* scale, At&& at) {
  if constexpr (!std::is_same_v<K, int8_t>) {
    for_own(D, [&](int i, int d) { to[at(d)] = from_f32<K>(x[i]); });
  } else {
    float largest = 0;
    for_own(D, [&](int i, int) { largest = Max()(fabsf(x[i]), largest); });
    largest = warp_reduce<Max>(largest);
    bool usable = largest >= kLeastHeadMagnitude && largest < INFINITY;
    float factor = usable ? 127 / largest : 0;
    for_own(D, [&](int i, int d) { to[at(d)] = usable ? int8_t(rintf(x[i] * factor)) : int8_t(0); });
    if (threadIdx.x % kWarp == 0)
      *scale = largest != largest ? INFINITY : largest < kLeastHeadMagnitude ? 0.0f : largest / 127;
  }
}

template <class T, class K>
__global__ void __launch_bounds__(kWriteWarps* kWarp) write(Write<T, K> op, const int32_t* good) {
  DS_SHARED(float[kWriteWarps][kMostHeadSize], shared);
  int H = op.heads, G = op.pages.heads, D = op.pages.D, all = H + 2 * G;
  int64_t total = int64_t(op.rows.R) * all, warps = int64_t(gridDim.x) * kWriteWarps;
  for (int64_t i = int64_t(blockIdx.x) * kWriteWarps + threadIdx.x / kWarp; i < total; i += warps) {
    int row = int(i / all), h = int(i % all);
    int s = op.rows.sequence_of(row);
    if (!good[s]) continue;  // has been reported
    const T *start = op.qkv + int64_t(row) * all * D, *from = start + h * D;
    int position = op.rows.past[s] + row - op.rows.starts[s];
    Head x = {};
    for_own(D, [&](int k, int d) { x[k] = to_f32(from[d]); });
    bool query = h < H, key = !query && h < H + G;
    if (query && op.query_norm) norm(op, x, start, h, H, op.query_norm, op.query_whole);
    if (key && op.key_norm) norm(op, x, start + H * D, h - H, G, op.key_norm, op.key_whole);
    if ((query || key) && op.table) rotate(op, x, position, shared[threadIdx.x / kWarp]);
    if (query) {
      T* to = op.q + (int64_t(row) * H + h) * D;
      for_own(D, [&](int k, int d) { to[d] = from_f32<T>(x[k]); });
      continue;
    }
    int page = op.pages.page, slot = position % page;
    int64_t at = op.pages.head(op.rows.page_of(s, position / page), key ? h - H : h - H - G);
    float* scale = op.pages.key_scales ? (key ? op.pages.key_scales : op.pages.value_scales) + at + slot : nullptr;
    if (key)
      write_head(x, D, op.pages.keys + at * D, scale, [&](int d) { return d * page + slot; });
    else
      write_head(x, D, op.pages.values + at * D, scale, [&](int d) { return slot * D + d; });
  }
}

}  // namespace

void paged_write(const PagedWrite& op, CudaContext& context) {
  int64_t R = op.qkv.dim(0), G = op.kv.heads(), D = op.kv.size();
  int32_t* good = context.scratch<int32_t>(op.rows.sequences());
  check_rows<PagedWrite>(rows_of(op.rows, R), op.kv, 0, op.table ? op.table.dim(0) : -1, good, context);
  if (R == 0) return;
  dispatch_paged(op.qkv.dtype, op.kv.keys.dtype, [&]<class T, class K>() {
    Write<T, K> pass{};
    pass.q = op.q.as<T>(), pass.pages = pages_of<K>(op.kv), pass.qkv = op.qkv.as<const T>();
    pass.rows = rows_of(op.rows, R);
    if (op.table) pass.table = op.table.as<const float>(), pass.positions = op.table.dim(0);
    pass.half = int(op.half()), pass.interleaved = op.interleaved, pass.heads = int(op.heads);
    pass.query_norm = op.query_norm.data, pass.key_norm = op.key_norm.data;
    pass.query_whole = op.query_norm && op.query_norm.numel() == op.heads * D;
    pass.key_whole = op.key_norm && op.key_norm.numel() == G * D;
    pass.float_weights = (op.query_norm ? op.query_norm : op.key_norm).dtype == DType::f32;
    pass.eps = float(op.eps);
    DS_LAUNCH((write<T, K>), strided_blocks(R * (op.heads + 2 * G), kWriteWarps, context), kWriteWarps * kWarp, 0,
              context, pass, good);
  });
}

DS_CUDA_KERNEL(PagedWrite, paged_write)

}  // namespace ds::cuda
