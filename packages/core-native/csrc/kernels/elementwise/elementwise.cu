#include "elementwise.h"

#include <algorithm>

#include "../../cuda/types.cuh"
#include "../common/gelu.cuh"
#include "../common/ref.h"

namespace ds::cuda {
namespace {

constexpr int kBlock = 256;

template <class F, class Out, class... In>
__device__ __forceinline__ Out apply(const F& f, In... in) {
  using Number = typename F::Number;
  return narrow<Out>(f(widen<Number>(in)...));
}

template <int N, class F, class Out, class... In>
__device__ __forceinline__ Pack<Out, N> apply_pack(const F& f, const Pack<In, N>&... in) {
  Pack<Out, N> out;
#pragma unroll
  for (int k = 0; k < N; ++k) out.at[k] = apply<F, Out>(f, in.at[k]...);
  return out;
}

// out[i] = f(in[i]...), N elements an access. A thread reads its elements before it writes them: `out` may be an input.
template <int N, class F, class Out, class... In>
__global__ void __launch_bounds__(kBlock) map(int64_t n, F f, Out* out, const In*... in) {
  int64_t stride = int64_t(gridDim.x) * kBlock * N;
  for (int64_t i = (int64_t(blockIdx.x) * kBlock + threadIdx.x) * N; i < n; i += stride) {
    if (i + N <= n)
      store(out + i, apply_pack<N, F, Out, In...>(f, load<N>(in + i)...));
    else
      for (int64_t j = i; j < n; ++j) out[j] = apply<F, Out>(f, in[j]...);
  }
}

template <int N, class F, class Out, class... In>
void launch_map(CudaContext& context, F f, int64_t n, Out* out, const In*... in) {
  unsigned blocks = strided_blocks(n, kBlock * N, context);
  if (blocks) DS_LAUNCH((map<N, F, Out, In...>), blocks, kBlock, 0, context, n, f, out, in...);
}

// By whole 16-byte words of the narrowest type where every pointer allows it; a view may start anywhere.
template <class F, class Out, class... In>
void map_elements(CudaContext& context, F f, int64_t n, Out* out, const In*... in) {
  constexpr int kNarrowest = int(std::min({sizeof(Out), sizeof(In)...}));
  if (aligned_16(out, in...))
    launch_map<16 / kNarrowest>(context, f, n, out, in...);
  else
    launch_map<1>(context, f, n, out, in...);
}

struct ScaleAddOf {
  using Number = float;
  float alpha, beta;
  __device__ float operator()(float a, float b) const { return fmaf(alpha, a, beta * b); }
};

template <class N>
struct ScaleOf {
  using Number = N;
  N factor;
  __device__ N operator()(N x) const { return factor * x; }
};

template <bool kFast>
struct GeluOf {
  using Number = float;
  __device__ float operator()(float x) const { return gelu<kFast>(x); }
};

template <bool kFast>
struct GeluBackwardOf {
  using Number = float;
  __device__ float operator()(float dy, float x) const { return dy * gelu_slope<kFast>(x); }
};

// The types that only copy knows beside the three floats.
template <class F>
void dispatch_any(DType dtype, F&& fn) {
  if (dtype == DType::f64) return fn.template operator()<double>();
  if (dtype == DType::i32) return fn.template operator()<int32_t>();
  if (dtype == DType::u8) return fn.template operator()<uint8_t>();
  dispatch_float(dtype, fn);
}

template <class Out>
void copy_to(const Copy& op, CudaContext& context) {
  dispatch_any(op.x.dtype, [&]<class In>() {
    Out* out = op.out.as<Out>();
    const In* x = op.x.as<In>();
    // f32 does not hold every i32.
    if constexpr (std::is_same_v<Out, double> || std::is_same_v<In, double> || std::is_same_v<In, int32_t>)
      launch_map<1>(context, ScaleOf<double>{op.factor}, op.out.numel(), out, x);
    else
      map_elements(context, ScaleOf<float>{float(op.factor)}, op.out.numel(), out, x);
  });
}

// Raw elements, so that one kernel a size serves every dtype.
template <class T>
__global__ void __launch_bounds__(kBlock) spread(int64_t n, T* out, T value) {
  Pack<T> pack;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) pack.at[k] = value;
  // The first elements up to an address that is a multiple of 16, the packs, and the last elements.
  int64_t head = int64_t((16 - reinterpret_cast<uintptr_t>(out) % 16) % 16 / sizeof(T));
  if (head > n) head = n;
  int64_t packs = (n - head) / kPack<T>, tail = head + packs * kPack<T>;
  int64_t first = int64_t(blockIdx.x) * kBlock + threadIdx.x, stride = int64_t(gridDim.x) * kBlock;
  for (int64_t p = first; p < packs; p += stride) store(out + head + p * kPack<T>, pack);
  if (first < head) out[first] = value;
  if (first < n - tail) out[tail + first] = value;
}

}  // namespace

void scale_add(const ScaleAdd& op, CudaContext& context) {
  ScaleAddOf f{float(op.alpha), float(op.beta)};
  dispatch_float(op.a.dtype, [&]<class A>() {
    dispatch_float(op.b.dtype, [&]<class B>() {
      map_elements(context, f, op.out.numel(), op.out.as<A>(), op.a.as<const A>(), op.b.as<const B>());
    });
  });
}

void copy(const Copy& op, CudaContext& context) {
  int64_t n = op.out.numel();
  if (op.out.dtype == op.x.dtype && op.factor == 1) {
    if (n == 0 || op.out.data == op.x.data) return;
    check(cudaMemcpyAsync(op.out.data, op.x.data, size_t(n) * dtype_bytes(op.x.dtype), cudaMemcpyDeviceToDevice,
                          context.stream()),
          context.op(), "a copy within the device");
    return;
  }
  if (op.out.dtype == DType::f64) return copy_to<double>(op, context);
  dispatch_float(op.out.dtype, [&]<class Out>() { copy_to<Out>(op, context); });
}

void fill(const Fill& op, CudaContext& context) {
  alignas(8) unsigned char one[8];  // one element of any dtype
  Tensor element = op.out;
  element.data = one;
  put(element, 0, op.value);
  auto launch_spread = [&]<class T>(T value) {
    std::memcpy(&value, one, sizeof value);
    int64_t n = op.out.numel();
    if (n)
      DS_LAUNCH(spread<T>, strided_blocks(n, kBlock * kPack<T>, context), kBlock, 0, context, n, op.out.as<T>(), value);
  };
  switch (dtype_bytes(op.out.dtype)) {
    case 1:
      return launch_spread(uint8_t{});
    case 2:
      return launch_spread(uint16_t{});
    case 4:
      return launch_spread(uint32_t{});
    default:
      return launch_spread(uint64_t{});
  }
}

void gelu(const Gelu& op, CudaContext& context) {
  dispatch_float(op.x.dtype, [&]<class T>() {
    map_elements(context, GeluOf<sizeof(T) == 2>{}, op.x.numel(), op.y.as<T>(), op.x.as<const T>());
  });
}

void gelu_backward(const GeluBackward& op, CudaContext& context) {
  dispatch_float(op.x.dtype, [&]<class T>() {
    map_elements(context, GeluBackwardOf<sizeof(T) == 2>{}, op.x.numel(), op.dx.as<T>(), op.dy.as<const T>(),
                 op.x.as<const T>());
  });
}

DS_CUDA_KERNEL(ScaleAdd, scale_add)
DS_CUDA_KERNEL(Copy, copy)
DS_CUDA_KERNEL(Fill, fill)
DS_CUDA_KERNEL(Gelu, gelu)
DS_CUDA_KERNEL(GeluBackward, gelu_backward)

}  // namespace ds::cuda
