// Bound by memory: the logits are read twice and the gradient written once; where the rows in flight fit into the L2
// cache, the second reading comes from there. A row is cut into segments of a fixed size, and every segment is reduced
// in the same way, whether a block walks over a whole row (many rows) or takes one segment (few long rows): the bits
// depend on the row alone.
#include "softmax_cross_entropy.h"

#include "../../cuda/reduce.cuh"
#include "../../cuda/types.cuh"

namespace ds::cuda {
namespace {

constexpr int kBlock = 512;
constexpr int kPerThread = 32;  // logits of a segment that a thread keeps in registers
constexpr int kSegment = kBlock * kPerThread;

// The largest logit of some, and the sum of exp(x - largest) over them.
struct Normaliser {
  float largest, total;

  __device__ void add(const Normaliser& other) {
    float m = fmaxf(largest, other.largest);
    // Nothing but -inf so far: any finite offset serves, and -inf - (-inf) would be NaN.
    float offset = m == -INFINITY ? 0 : m;
    total = total * expf(largest - offset) + other.total * expf(other.largest - offset);
    largest = m;
  }
};
constexpr Normaliser kNothing{-INFINITY, 0};

template <class T>
struct Rows {
  float* losses;
  T* dlogits;  // null for no gradient; may be the logits
  const T* logits;
  const int32_t* targets;
  int64_t R, V, segments;
  int64_t ignore_index;
  float scale;
};

// What stands between the two kernels of long rows.
struct Parts {
  Normaliser* segments;  // [R, segments]
  float* correct;        // [R], the target's logit: the gradient may take its place
};

// For 16-bit types the approximate exponential: its error is far below their rounding.
template <class T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (sizeof(T) == 2) return __expf(x);
  return expf(x);
}

// A thread's logits of one segment: packs threadIdx.x, threadIdx.x + kBlock, ... of it.
template <class T, bool kWhole>
struct Segment {
  static constexpr int N = kPack<T>, packs = kPerThread / N;
  Pack<T, N> pack[packs];

  __device__ static int column(int i) { return (i * kBlock + int(threadIdx.x)) * N; }

  __device__ void load(const T* x, int count) {
#pragma unroll
    for (int i = 0; i < packs; ++i) pack[i] = load_up_to<N, kWhole>(count - column(i), x + column(i));
  }

  // All threads of the block must call it; all get the same.
  __device__ Normaliser normaliser(int count) const {
    // fmaxf passes over NaN; the sum of exponentials does not.
    float largest = -INFINITY;
    for_each(count, [&](float x) { largest = fmaxf(largest, x); });
    largest = block_reduce<Max>(largest, int(threadIdx.x), kBlock);
    float offset = largest == -INFINITY ? 0 : largest, total = 0;
    for_each(count, [&](float x) { total += exponential<T>(x - offset); });
    return {largest, block_reduce<Sum>(total, int(threadIdx.x), kBlock)};
  }

  // `target`: its column in this segment, or anything else.
  __device__ void write_gradient(T* d, int count, const Normaliser& row, float scale, int64_t target) {
    float factor = scale / row.total;
#pragma unroll
    for (int i = 0; i < packs; ++i) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        float e = exponential<T>(to_f32(pack[i].at[k]) - row.largest);
        pack[i].at[k] = from_f32<T>(column(i) + k == target ? (e / row.total - 1) * scale : e * factor);
      }
      store_up_to<kWhole>(count - column(i), d + column(i), pack[i]);
    }
  }

  __device__ static void write_zeros(T* d, int count) {
#pragma unroll
    for (int i = 0; i < packs; ++i) store_up_to<kWhole>(count - column(i), d + column(i), Pack<T, N>{});
  }

 private:
  template <class Body>
  __device__ void for_each(int count, Body&& body) const {
#pragma unroll
    for (int i = 0; i < packs; ++i) {
#pragma unroll
      for (int k = 0; k < N; ++k)
        if (column(i) + k < count) body(to_f32(pack[i].at[k]));
    }
  }
};

__device__ __forceinline__ int count_of(int64_t V, int64_t segment) {
  int64_t left = V - segment * kSegment;
  return int(left < kSegment ? left : kSegment);
}

enum class Target { counts, ignored, bad };

template <class T>
__device__ __forceinline__ Target kind_of(const Rows<T>& op, int64_t target) {
  if (target == op.ignore_index) return Target::ignored;
  return target >= 0 && target < op.V ? Target::counts : Target::bad;
}

__device__ __forceinline__ float loss_of(const Normaliser& row, float correct) {
  return float(double(row.largest) - correct + log(double(row.total)));
}

// Many rows: a block takes one, over all its segments.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kBlock, 2) whole_rows(Rows<T> op, FaultReport report) {
  for (int64_t r = blockIdx.x; r < op.R; r += gridDim.x) {
    const T* x = op.logits + r * op.V;
    T* d = op.dlogits ? op.dlogits + r * op.V : nullptr;
    int64_t target = op.targets[r];
    Target kind = kind_of(op, target);
    if (kind == Target::bad) {
      if (threadIdx.x == 0) raise_fault(report, op.V, op.ignore_index, target, r);
      continue;
    }
    if (kind == Target::ignored) {
      if (threadIdx.x == 0) op.losses[r] = 0;
      if (d)
        for (int64_t s = 0; s < op.segments; ++s) Segment<T, kWhole>::write_zeros(d + s * kSegment, count_of(op.V, s));
      continue;
    }
    // Before the gradient may take its place: the barriers of the reductions are in between.
    float correct = threadIdx.x == 0 ? to_f32(x[target]) : 0;
    Normaliser row = kNothing;
    Segment<T, kWhole> segment;
    for (int64_t s = 0; s < op.segments; ++s) {
      segment.load(x + s * kSegment, count_of(op.V, s));
      row.add(segment.normaliser(count_of(op.V, s)));
    }
    if (threadIdx.x == 0) op.losses[r] = loss_of(row, correct);
    if (!d) continue;
    // Backwards: the last segment is still in registers, those before it most likely in the cache.
    for (int64_t s = op.segments - 1; s >= 0; --s) {
      if (s < op.segments - 1) segment.load(x + s * kSegment, count_of(op.V, s));
      segment.write_gradient(d + s * kSegment, count_of(op.V, s), row, op.scale, target - s * kSegment);
    }
  }
}

// Few long rows, first kernel: item i is segment i % segments of row i / segments.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kBlock, 2) normalise_segments(Rows<T> op, Parts parts, FaultReport report) {
  for (int64_t item = blockIdx.x; item < op.R * op.segments; item += gridDim.x) {
    int64_t r = item / op.segments, s = item % op.segments, target = op.targets[r];
    Target kind = kind_of(op, target);
    if (threadIdx.x == 0 && s == 0 && kind == Target::bad) raise_fault(report, op.V, op.ignore_index, target, r);
    if (kind != Target::counts) continue;
    const T* x = op.logits + r * op.V;
    if (threadIdx.x == 0 && s == 0) parts.correct[r] = to_f32(x[target]);
    Segment<T, kWhole> segment;
    segment.load(x + s * kSegment, count_of(op.V, s));
    Normaliser part = segment.normaliser(count_of(op.V, s));
    if (threadIdx.x == 0) parts.segments[item] = part;
  }
}

// Second kernel: losses, and the gradient of a segment a block.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kBlock, 2) finish_segments(Rows<T> op, Parts parts) {
  int64_t per_row = op.dlogits ? op.segments : 1;
  for (int64_t item = blockIdx.x; item < op.R * per_row; item += gridDim.x) {
    int64_t r = item / per_row, s = item % per_row, target = op.targets[r], offset = r * op.V + s * kSegment;
    Target kind = kind_of(op, target);
    if (kind == Target::bad) continue;
    Normaliser row = kNothing;
    if (kind == Target::counts)
      for (int64_t i = 0; i < op.segments; ++i) row.add(parts.segments[r * op.segments + i]);
    if (threadIdx.x == 0 && s == 0) op.losses[r] = kind == Target::counts ? loss_of(row, parts.correct[r]) : 0;
    if (!op.dlogits) continue;
    Segment<T, kWhole> segment;
    if (kind == Target::ignored) {
      segment.write_zeros(op.dlogits + offset, count_of(op.V, s));
      continue;
    }
    segment.load(op.logits + offset, count_of(op.V, s));
    segment.write_gradient(op.dlogits + offset, count_of(op.V, s), row, op.scale, target - s * kSegment);
  }
}

template <class T, bool kWhole>
void run(const Rows<T>& rows, CudaContext& context) {
  FaultReport report = context.fault([](const int64_t* numbers) {
    return SoftmaxCrossEntropy::bad_target(numbers[0], numbers[1], numbers[2], numbers[3]);
  });
  // Two blocks a multiprocessor keep the device busy.
  if (rows.segments == 1 || rows.R >= 2 * context.multiprocessors()) {
    DS_LAUNCH((whole_rows<T, kWhole>), strided_blocks(rows.R, 1, context), kBlock, 0, context, rows, report);
    return;
  }
  int64_t items = rows.R * rows.segments;
  auto* segments = context.scratch<Normaliser>(items + rows.R);  // more than `correct` needs
  Parts parts{segments, reinterpret_cast<float*>(segments + items)};
  DS_LAUNCH((normalise_segments<T, kWhole>), strided_blocks(items, 1, context), kBlock, 0, context, rows, parts,
            report);
  DS_LAUNCH((finish_segments<T, kWhole>), strided_blocks(rows.dlogits ? items : rows.R, 1, context), kBlock, 0, context,
            rows, parts);
}

}  // namespace

void softmax_cross_entropy(const SoftmaxCrossEntropy& op, CudaContext& context) {
  int64_t R = op.losses.numel();
  if (R == 0) return;
  int64_t V = op.logits.numel() / R;
  bool whole = aligned_16(op.dlogits.data, op.logits.data) && V * int64_t(dtype_bytes(op.logits.dtype)) % 16 == 0;
  dispatch_float(op.logits.dtype, [&]<class T>() {
    Rows<T> rows{op.losses.as<float>(),
                 op.dlogits.as<T>(),
                 op.logits.as<const T>(),
                 op.targets.as<const int32_t>(),
                 R,
                 V,
                 (V + kSegment - 1) / kSegment,
                 op.ignore_index,
                 float(op.scale)};
    whole ? run<T, true>(rows, context) : run<T, false>(rows, context);
  });
}

DS_CUDA_KERNEL(SoftmaxCrossEntropy, softmax_cross_entropy)

}  // namespace ds::cuda
