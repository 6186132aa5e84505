// Both directions are bound by memory. The gradient first sorts the ids stably, by counting sorts of 6 bits that need
// no atomics: a warp keeps its own counters. A run of equal ids is then summed in order of position; a run longer than
// kPiece in pieces of kPiece, so that an id which is everywhere does not wait for one thread.
#include "embedding.h"

#include <algorithm>
#include <utility>

#include "../../cuda/types.cuh"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;

// Threads (x along the columns of a row, y over rows) for rows of `accesses`.
dim3 block_for(int64_t accesses) {
  int x = 1;
  while (x < kBlock && x < accesses) x *= 2;
  return dim3(unsigned(x), unsigned(kBlock / x));
}

// W: what one access moves; a row has C of them.
template <class W>
__global__ void __launch_bounds__(kBlock)
    gather(W* y, const int32_t* ids, const W* table, int64_t R, int64_t V, int64_t C, FaultReport report) {
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < R; r += int64_t(gridDim.x) * blockDim.y) {
    int64_t id = ids[r];
    if (id < 0 || id >= V) {
      if (threadIdx.x == 0) raise_fault(report, V, id, r);
      continue;
    }
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < C; c += blockDim.x) y[r * C + c] = table[id * C + c];
  }
}

constexpr int kDigitBits = 6, kDigits = 1 << kDigitBits;
constexpr int kTile = 512;  // ids that a warp sorts
constexpr int kSortWarps = 4;
constexpr int kScanBlock = 1024;
constexpr int kPiece = 256;

struct Occurrence {
  int32_t id, position;
};

// Positions [begin, end) of the sorted ids, all of one id.
struct Run {
  int32_t begin, end;
};

struct Workspace {
  Occurrence *from, *to;
  int32_t* offsets;  // [kDigits, tiles]: where a tile's next id of a digit goes
  Run* pieces;       // of at most kPiece, in any order
  Run* long_runs;    // those of more than one piece
  int32_t* counts;   // of pieces, of long runs
  float* partial;    // [slots, C]
};

// The place of a long run's piece in `partial`. Begins of first pieces are further apart than kPiece, and so are those
// of all others.
__device__ __forceinline__ int64_t slot_of(int64_t begin, bool first) { return begin / kPiece * 2 + !first; }

// Calls body(occurrence, digit, before, peers) for each id of the warp's tile, in order, 32 at a time: `before` lanes
// below hold the same digit, `peers` in all. All lanes come; those past the end have no digit (-1).
template <class Body>
__device__ __forceinline__ void for_tile(const Occurrence* from, int64_t begin, int64_t R, int shift, Body&& body) {
  int lane = int(threadIdx.x);
  for (int64_t base = begin; base < begin + kTile && base < R; base += kWarp) {
    int64_t i = base + lane;
    Occurrence o = i < R ? from[i] : Occurrence{0, 0};
    int digit = i < R ? int(uint32_t(o.id) >> shift & (kDigits - 1)) : -1;
    unsigned peers = __ballot_sync(kAllLanes, i < R);
#pragma unroll
    for (int bit = 0; bit < kDigitBits; ++bit) {
      unsigned ones = __ballot_sync(kAllLanes, digit >> bit & 1);
      peers &= digit >> bit & 1 ? ones : ~ones;
    }
    body(o, digit, __popc(peers & ((1u << lane) - 1)), __popc(peers));
  }
}

// An id outside the table becomes V, behind all others: no row is its.
__global__ void __launch_bounds__(kBlock)
    list_ids(Workspace work, const int32_t* ids, int64_t R, int64_t V, FaultReport report) {
  int64_t r = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < 2) work.counts[r] = 0;
  if (r >= R) return;
  int64_t id = ids[r];
  bool bad = id < 0 || id >= V;
  if (bad) raise_fault(report, V, id, r);
  work.from[r] = {int32_t(bad ? V : id), int32_t(r)};
}

__global__ void __launch_bounds__(kWarp* kSortWarps) count_digits(Workspace work, int64_t R, int64_t tiles, int shift) {
  DS_SHARED(int32_t[kSortWarps][kDigits], counted);
  int64_t tile = int64_t(blockIdx.x) * kSortWarps + threadIdx.y;
  if (tile >= tiles) return;  // whole warps: nothing below waits for the block
  int32_t* own = counted[threadIdx.y];
  for (int d = int(threadIdx.x); d < kDigits; d += kWarp) own[d] = 0;
  __syncwarp();
  for_tile(work.from, tile * kTile, R, shift, [&](Occurrence, int digit, int before, int peers) {
    if (digit >= 0 && before == 0) own[digit] += peers;
    __syncwarp();
  });
  for (int d = int(threadIdx.x); d < kDigits; d += kWarp) work.offsets[d * tiles + tile] = own[d];
}

// Exclusive sums in place, by one block.
__global__ void __launch_bounds__(kScanBlock) scan(int32_t* values, int64_t n) {
  DS_SHARED(int32_t[kScanBlock / kWarp], of_warps);
  int64_t each = (n + kScanBlock - 1) / kScanBlock, begin = each * threadIdx.x;
  int64_t end = begin + each < n ? begin + each : n;
  int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  int32_t own = 0;
  for (int64_t i = begin; i < end; ++i) own += values[i];
  int32_t upto = own;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    int32_t below = __shfl_up_sync(kAllLanes, upto, unsigned(step));
    if (lane >= step) upto += below;
  }
  if (lane == kWarp - 1) of_warps[warp] = upto;
  __syncthreads();
  int32_t before = upto - own;
  for (int w = 0; w < warp; ++w) before += of_warps[w];
  for (int64_t i = begin; i < end; ++i) {
    int32_t value = values[i];
    values[i] = before;
    before += value;
  }
}

__global__ void __launch_bounds__(kWarp* kSortWarps) place_ids(Workspace work, int64_t R, int64_t tiles, int shift) {
  DS_SHARED(int32_t[kSortWarps][kDigits], next);
  int64_t tile = int64_t(blockIdx.x) * kSortWarps + threadIdx.y;
  if (tile >= tiles) return;  // as in count_digits
  int32_t* own = next[threadIdx.y];
  for (int d = int(threadIdx.x); d < kDigits; d += kWarp) own[d] = work.offsets[d * tiles + tile];
  __syncwarp();
  for_tile(work.from, tile * kTile, R, shift, [&](Occurrence o, int digit, int before, int peers) {
    int32_t at = digit >= 0 ? own[digit] : 0;
    __syncwarp();
    if (digit >= 0) {
      work.to[at + before] = o;
      if (before == 0) own[digit] = at + peers;
    }
    __syncwarp();
  });
}

// The first index in (low, high] whose id is not that of low, where equal ids are neighbours.
__device__ __forceinline__ int64_t run_end(const Occurrence* sorted, int64_t low, int64_t high) {
  int32_t id = sorted[low].id;
  while (low + 1 < high) {
    int64_t middle = (low + high) / 2;
    (sorted[middle].id == id ? low : high) = middle;
  }
  return high;
}
// The first index in [0, high] with the id of high.
__device__ __forceinline__ int64_t run_begin(const Occurrence* sorted, int64_t high) {
  int32_t id = sorted[high].id;
  int64_t low = -1;
  while (low + 1 < high) {
    int64_t middle = (low + high) / 2;
    (sorted[middle].id == id ? high : low) = middle;
  }
  return high;
}

__device__ __forceinline__ bool begins_piece(const Occurrence* sorted, int64_t i) {
  int32_t id = sorted[i].id;
  if (i == 0 || sorted[i - 1].id != id) return true;
  // Few ids have one like them kPiece before: only these search for their run's begin.
  return i >= kPiece && sorted[i - kPiece].id == id && (i - run_begin(sorted, i)) % kPiece == 0;
}

// Lists the pieces and the long runs. The order of the lists depends on timing, that of no sum does: a piece begins at
// a multiple of kPiece from its run's begin.
__global__ void __launch_bounds__(kBlock) list_pieces(Workspace work, int64_t R, int64_t V) {
  int64_t i = int64_t(blockIdx.x) * kBlock + threadIdx.x;
  const Occurrence* sorted = work.from;
  bool begins = i < R && sorted[i].id != V && begins_piece(sorted, i);
  // One addition a warp, because all are to one address.
  unsigned all = __ballot_sync(kAllLanes, begins), lane = threadIdx.x % kWarp;
  int32_t at = lane == 0 && all ? atomicAdd(&work.counts[0], __popc(all)) : 0;
  at = __shfl_sync(kAllLanes, at, 0) + __popc(all & ((1u << lane) - 1));
  if (!begins) return;
  int64_t end = run_end(sorted, i, i + kPiece < R ? i + kPiece : R);
  work.pieces[at] = {int32_t(i), int32_t(end)};
  bool first = i == 0 || sorted[i - 1].id != sorted[i].id;
  if (first && end < R && sorted[end].id == sorted[i].id)
    work.long_runs[atomicAdd(&work.counts[1], 1)] = {int32_t(i), int32_t(run_end(sorted, i, R))};
}

template <class G>
struct Target {
  G* dtable;
  int64_t C;
  bool accumulate;

  template <int N>
  __device__ void add(int64_t id, int64_t c, const float (&sum)[N]) const {
    G* at = dtable + id * C + c;
    Pack<G, N> pack{};
    if (accumulate) pack = load<N>(at);
#pragma unroll
    for (int k = 0; k < N; ++k) pack.at[k] = from_f32<G>(accumulate ? to_f32(pack.at[k]) + sum[k] : sum[k]);
    store(at, pack);
  }
};

// N columns a thread. blockIdx.y: which of the cuts of the columns.
template <class T, class G, int N>
__global__ void __launch_bounds__(kBlock) sum_pieces(Workspace work, Target<G> target, const T* dy, int64_t R) {
  int64_t pieces = work.counts[0], C = target.C;
  const Occurrence* sorted = work.from;
  int64_t c = (int64_t(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (c >= C) return;
  for (int64_t p = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; p < pieces; p += int64_t(gridDim.x) * blockDim.y) {
    Run piece = work.pieces[p];
    int32_t id = sorted[piece.begin].id;
    float sum[N] = {};
#pragma unroll 4
    for (int i = piece.begin; i < piece.end; ++i) {
      Pack<T, N> row = load<N>(dy + sorted[i].position * C + c);
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += to_f32(row.at[k]);
    }
    bool first = piece.begin == 0 || sorted[piece.begin - 1].id != id;
    if (first && (piece.end == R || sorted[piece.end].id != id)) {
      target.add(id, c, sum);
      continue;
    }
    float* partial = work.partial + slot_of(piece.begin, first) * C + c;
#pragma unroll
    for (int k = 0; k < N; ++k) partial[k] = sum[k];
  }
}

// A column a thread, the pieces of a long run in order.
template <class G>
__global__ void __launch_bounds__(kBlock) sum_long_runs(Workspace work, Target<G> target) {
  int64_t runs = work.counts[1], c = int64_t(blockIdx.y) * kBlock + threadIdx.x;
  if (c >= target.C) return;
  for (int64_t r = blockIdx.x; r < runs; r += gridDim.x) {
    Run run = work.long_runs[r];
    float sum[1] = {0};
#pragma unroll 8
    for (int64_t begin = run.begin; begin < run.end; begin += kPiece)
      sum[0] += work.partial[slot_of(begin, begin == run.begin) * target.C + c];
    target.add(work.from[run.begin].id, c, sum);
  }
}

int64_t pieces_of(int64_t R) { return (R + kPiece - 1) / kPiece; }

Workspace workspace(CudaContext& context, int64_t R, int64_t C, int64_t tiles) {
  auto round = [](int64_t bytes) { return (bytes + 15) / 16 * 16; };
  int64_t list = round(R * int64_t(sizeof(Occurrence))), offsets = round(kDigits * tiles * 4);
  int64_t long_runs = round(pieces_of(R) * int64_t(sizeof(Run))), partial = 2 * pieces_of(R) * C * 4;
  auto* at = context.scratch<unsigned char>(3 * list + offsets + long_runs + 16 + partial);
  auto take = [&at](int64_t bytes) { return static_cast<void*>(std::exchange(at, at + bytes)); };
  Workspace work{};
  work.from = static_cast<Occurrence*>(take(list));
  work.to = static_cast<Occurrence*>(take(list));
  work.pieces = static_cast<Run*>(take(list));
  work.offsets = static_cast<int32_t*>(take(offsets));
  work.long_runs = static_cast<Run*>(take(long_runs));
  work.counts = static_cast<int32_t*>(take(16));
  work.partial = static_cast<float*>(take(partial));
  return work;
}

// Leaves the ids in work.from, by id and then by position.
void sort_ids(Workspace& work, const EmbeddingBackward& op, int64_t V, int64_t tiles, CudaContext& context) {
  int64_t R = op.ids.numel();
  FaultReport report = context.fault(
      [](const int64_t* numbers) { return bad_id(EmbeddingBackward::name, numbers[0], numbers[1], numbers[2]); });
  DS_LAUNCH(list_ids, unsigned((R + kBlock - 1) / kBlock), kBlock, 0, context, work, op.ids.as<const int32_t>(), R, V,
            report);
  unsigned blocks = unsigned((tiles + kSortWarps - 1) / kSortWarps);
  dim3 warps(kWarp, kSortWarps);
  for (int shift = 0; shift < 32 && V >> shift > 0; shift += kDigitBits) {
    DS_LAUNCH(count_digits, blocks, warps, 0, context, work, R, tiles, shift);
    DS_LAUNCH(scan, 1, kScanBlock, 0, context, work.offsets, kDigits * tiles);
    DS_LAUNCH(place_ids, blocks, warps, 0, context, work, R, tiles, shift);
    std::swap(work.from, work.to);
  }
}

template <class T, class G>
void sum_runs(const Workspace& work, const EmbeddingBackward& op, CudaContext& context) {
  int64_t R = op.ids.numel(), C = op.dtable.numel() / op.dtable.dims[0];
  Target<G> target{op.dtable.as<G>(), C, op.accumulate};
  auto launch_by = [&]<int N>() {
    dim3 block = block_for((C + N - 1) / N);
    dim3 grid(strided_blocks(R, block.y, context), unsigned((C + int64_t(block.x) * N - 1) / (int64_t(block.x) * N)));
    DS_LAUNCH((sum_pieces<T, G, N>), grid, block, 0, context, work, target, op.dy.as<const T>(), R);
  };
  constexpr int kWhole = kPack<T>;
  aligned_16(op.dtable.data, op.dy.data) && C % std::max(kWhole, kPack<G>) == 0
      ? launch_by.template operator()<kWhole>()
      : launch_by.template operator()<1>();
  if (R <= kPiece) return;  // no long run
  dim3 grid(strided_blocks(pieces_of(R), 1, context), unsigned((C + kBlock - 1) / kBlock));
  DS_LAUNCH(sum_long_runs<G>, grid, kBlock, 0, context, work, target);
}

}  // namespace

void embedding(const Embedding& op, CudaContext& context) {
  int64_t R = op.ids.numel(), V = op.table.dims[0];
  if (R == 0 || op.table.dims[1] == 0) return;
  int64_t row_bytes = op.table.dims[1] * int64_t(dtype_bytes(op.table.dtype));
  FaultReport report =
      context.fault([](const int64_t* numbers) { return bad_id(Embedding::name, numbers[0], numbers[1], numbers[2]); });
  auto launch_by = [&]<class W>() {
    int64_t C = row_bytes / int64_t(sizeof(W));
    dim3 block = block_for(C);
    DS_LAUNCH(gather<W>, strided_blocks(R, block.y, context), block, 0, context, op.y.as<W>(),
              op.ids.as<const int32_t>(), op.table.as<const W>(), R, V, C, report);
  };
  if (aligned_16(op.y.data, op.table.data) && row_bytes % 16 == 0) return launch_by.template operator()<uint4>();
  dispatch_float(op.table.dtype, [&]<class T>() { launch_by.template operator()<T>(); });
}

void embedding_backward(const EmbeddingBackward& op, CudaContext& context) {
  int64_t R = op.ids.numel(), V = op.dtable.dims[0], C = op.dtable.dims[1];
  // Rows that an id names are written again: they are few beside the others.
  if (!op.accumulate && V * C > 0)
    check(cudaMemsetAsync(op.dtable.data, 0, size_t(V * C) * dtype_bytes(op.dtable.dtype), context.stream()),
          context.op(), "zeros in the gradient");
  if (R == 0 || C == 0) return;
  int64_t tiles = (R + kTile - 1) / kTile;
  Workspace work = workspace(context, R, C, tiles);
  sort_ids(work, op, V, tiles, context);
  if (V == 0) return;  // every id was bad
  DS_LAUNCH(list_pieces, unsigned((R + kBlock - 1) / kBlock), kBlock, 0, context, work, R, V);
  dispatch_float(op.dy.dtype, [&]<class T>() {
    dispatch_float(op.dtable.dtype, [&]<class G>() { sum_runs<T, G>(work, op, context); });
  });
}

DS_CUDA_KERNEL(Embedding, embedding)
DS_CUDA_KERNEL(EmbeddingBackward, embedding_backward)

}  // namespace ds::cuda
