#include "linear.h"

#include "../../cuda/cublaslt.h"
#include "gemm.cuh"

namespace ds::cuda {
namespace {

Matrix matrix(const Tensor& t, int64_t stride, bool transposed = false) {
  return {t.data, t.dtype, stride, transposed};
}

// Where the library takes over: a product smaller than this is over before its larger tiles fill the device. Not
// measured yet.
constexpr double kLibraryWork = 1 << 27;
constexpr int64_t kLibraryRows = 64;

// Sums that the L2 of an H100 still holds when the epilogue reads them, and work for two waves of 128 x 256 tiles.
constexpr int64_t kSlabFloats = 8 << 20;

// One product: planned first, because an op asks for scratch memory once, and then queued.
class Product {
 public:
  Product(const Gemm& g, CudaContext& context) : g_(g), context_(context), cut_(cut_of(g)) {
    if (!empty() && library_wanted()) plan_library();
  }

  size_t scratch_bytes() const {
    if (empty()) return 0;
    if (library_) return kCublasLtWorkspace + size_t(slab_ * g_.N) * sizeof(float);
    return cut_.parts > 1 ? size_t(cut_.parts * g_.M * g_.N) * sizeof(float) : 0;
  }

  void run(void* scratch) const {
    if (empty()) return;
    if (library_) return slab_ ? run_in_slabs(static_cast<char*>(scratch)) : run_library(scratch);
    auto* partial = cut_.parts > 1 ? static_cast<float*>(scratch) : nullptr;
    if (cut_.tensor)
      run_tensor(partial);
    else
      run_vector(partial);
  }

 private:
  bool empty() const { return g_.M == 0 || g_.N == 0; }

  bool library_wanted() const {
    auto fits = [](const Matrix& m) { return aligned_16(m.data) && m.stride * dtype_bytes(m.dtype) % 16 == 0; };
    bool possible = g_.K > 0 && g_.a.dtype == g_.b.dtype && fits(g_.a) && fits(g_.b) && fits(g_.c) &&
                    aligned_16(g_.epilogue.residual, g_.epilogue.bias);
    bool large = g_.M >= kLibraryRows && double(g_.M) * double(g_.N) * double(g_.K) >= kLibraryWork;
    return possible && cublaslt_wanted(large);
  }

  // The library's GELU has an accuracy that NVIDIA doesn't state, and its residual would come before it. So where there
  // is one the library makes bare f32 sums, a slab of rows at a time, and the epilogue is ours.
  void plan_library() {
    if (g_.epilogue.gelu || g_.epilogue.pre)
      slab_ = std::min(g_.M, std::max<int64_t>(kSlabFloats / g_.N / 128 * 128, 128));
    library_ = cublaslt_plan(library_product(0, slab_ ? slab_ : g_.M, nullptr), context_);
    if (slab_ && library_ && g_.M % slab_) {
      last_slab_ = cublaslt_plan(library_product(0, g_.M % slab_, nullptr), context_);
      if (!last_slab_) library_ = nullptr;
    }
  }

  CublasLtProduct library_product(int64_t row, int64_t rows, void* sums) const {
    auto factor = [](const Matrix& m) { return CublasLtMatrix{m.data, m.dtype, m.stride, m.transposed}; };
    CublasLtProduct p{rows, g_.N, g_.K, factor(g_.a), factor(g_.b), factor(g_.c), nullptr, nullptr};
    if (slab_) {
      p.a.data = static_cast<char*>(g_.a.data) + row * g_.a.stride * int64_t(dtype_bytes(g_.a.dtype));
      p.d = {sums, DType::f32, g_.N, false};
    } else {
      p.bias = g_.epilogue.bias;
      p.added = g_.accumulate ? g_.c.data : g_.epilogue.residual;
    }
    return p;
  }

  void run_library(void* workspace) const {
    cublaslt_run(*library_, library_product(0, g_.M, nullptr), workspace, context_);
  }

  void run_in_slabs(char* workspace) const {
    auto* sums = reinterpret_cast<float*>(workspace + kCublasLtWorkspace);
    for (int64_t row = 0; row < g_.M; row += slab_) {
      int64_t rows = std::min(slab_, g_.M - row);
      cublaslt_run(rows == slab_ ? *library_ : *last_slab_, library_product(row, rows, sums), workspace, context_);
      dispatch_float(g_.c.dtype,
                     [&]<class T>() { finish_from(sums, 1, finish_of<T, T>(g_, nullptr).rows(row, rows), context_); });
    }
  }

  // Calls fn<kAAlong, kBAlong>(): which factors are stored along the depth. Only a gradient of the weight has neither.
  template <class F>
  void dispatch_layout(F&& fn) const {
    if (g_.a.transposed) return fn.template operator()<false, false>();
    if (g_.b.transposed) return fn.template operator()<true, true>();
    fn.template operator()<true, false>();
  }

  void run_tensor(float* partial) const {
    auto typed = [&]<class T>() {
      dispatch_layout([&]<bool kAAlong, bool kBAlong>() {
        if constexpr (!kAAlong)
          if (g_.c.dtype == DType::f32)
            return launch_tensor_gemm<T, float, kAAlong, kBAlong>(g_, cut_, partial, context_);
        launch_tensor_gemm<T, T, kAAlong, kBAlong>(g_, cut_, partial, context_);
      });
    };
    if (g_.a.dtype == DType::bf16) return typed.template operator()<bf16>();
    typed.template operator()<f16>();
  }

  void run_vector(float* partial) const {
    if (g_.a.transposed) return launch_vector_gemm<float, float, false, false>(g_, cut_, partial, context_);
    dispatch_float(g_.a.dtype, [&]<class T>() {
      if (g_.b.transposed) return launch_vector_gemm<T, float, true, true>(g_, cut_, partial, context_);
      launch_vector_gemm<T, float, true, false>(g_, cut_, partial, context_);
    });
  }

  const Gemm& g_;
  CudaContext& context_;
  GemmCut cut_;
  CublasLtPlan *library_ = nullptr, *last_slab_ = nullptr;
  int64_t slab_ = 0;  // rows; 0 where the library makes the epilogue too
};

void multiply(const Gemm& g, CudaContext& context) {
  Product product(g, context);
  product.run(context.scratch<char>(int64_t(product.scratch_bytes())));
}

// dbias, first stage: block (x, y) sums kElements columns a lane over the rows of slab y, each of its 8 warps every 8th
// row. Bound by reading dy.
constexpr int kSlabWarps = 8, kBiasBlock = 256;

// Depends on the shape alone, so that the order of the sum does.
int64_t bias_slabs(int64_t R) { return std::min<int64_t>((R + 63) / 64, 128); }

template <int kElements, class T>
__global__ void __launch_bounds__(kWarp* kSlabWarps) sum_columns(const T* dy, float* partial, int64_t R, int64_t N) {
  DS_SHARED(float[kSlabWarps][kElements][kWarp], by_warp);
  int64_t n = (int64_t(blockIdx.x) * kWarp + threadIdx.x) * kElements, slabs = gridDim.y, slab = blockIdx.y;
  int64_t begin = R * slab / slabs, end = R * (slab + 1) / slabs;
  float sums[kElements] = {};
  if (n < N) {
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; r < end; r += kSlabWarps) {
      auto pack = load<kElements>(dy + r * N + n);
#pragma unroll
      for (int k = 0; k < kElements; ++k) sums[k] += to_f32(pack.at[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < kElements; ++k) by_warp[threadIdx.y][k][threadIdx.x] = sums[k];
  __syncthreads();
  if (threadIdx.y >= kElements || n >= N) return;  // kElements <= kSlabWarps: warp k finishes the k-th of each pack
  float total = 0;
#pragma unroll
  for (int w = 0; w < kSlabWarps; ++w) total += by_warp[w][threadIdx.y][threadIdx.x];
  partial[slab * N + n + threadIdx.y] = total;
}

template <class G>
__global__ void __launch_bounds__(kBiasBlock)
    sum_slabs(const float* partial, int64_t slabs, G* dbias, int64_t N, bool accumulate) {
  int64_t n = int64_t(blockIdx.x) * kBiasBlock + threadIdx.x;
  if (n >= N) return;
  float total = 0;
  for (int64_t slab = 0; slab < slabs; ++slab) total += partial[slab * N + n];
  dbias[n] = from_f32<G>(accumulate ? to_f32(dbias[n]) + total : total);
}

void sum_bias(const LinearBackwardWeight& op, float* partial, CudaContext& context) {
  int64_t R = op.dy.rows(), N = op.dweight.dim(0), slabs = bias_slabs(R);
  if (N == 0) return;
  dispatch_float(op.dy.dtype, [&]<class T>() {
    auto launch = [&]<int kElements>() {
      dim3 grid(unsigned((N + kWarp * kElements - 1) / (kWarp * kElements)), unsigned(slabs));
      DS_LAUNCH((sum_columns<kElements, T>), grid, dim3(kWarp, kSlabWarps), 0, context, op.dy.as<const T>(), partial, R,
                N);
    };
    if (slabs == 0) return;
    if (N % kPack<T> == 0 && aligned_16(op.dy.data)) return launch.template operator()<kPack<T>>();
    launch.template operator()<1>();
  });
  dispatch_float(op.dweight.dtype, [&]<class G>() {
    DS_LAUNCH(sum_slabs<G>, unsigned((N + kBiasBlock - 1) / kBiasBlock), kBiasBlock, 0, context, partial, slabs,
              op.dbias.as<G>(), N, op.accumulate);
  });
}

}  // namespace

void linear(const Linear& op, CudaContext& context) {
  int64_t R = op.x.rows(), K = op.x.dim(-1), N = op.weight.dim(0);
  Gemm g{R, N, K, matrix(op.x, K), matrix(op.weight, K, true), matrix(op.y, N), false, {}};
  if (op.bias) g.epilogue.bias = op.bias.data;
  g.epilogue.bias_dtype = op.weight.dtype;
  if (op.pre) g.epilogue.pre = op.pre.data;
  g.epilogue.gelu = op.gelu;
  if (op.residual) g.epilogue.residual = op.residual.data;
  if (R > kNarrowRows) return multiply(g, context);
  if (R == 0 || N == 0) return;
  dispatch_float(op.x.dtype, [&]<class T>() {
    if (op.weight.dtype == DType::f32) return narrow_gemm<T, float>(g, context);
    narrow_gemm<T, T>(g, context);
  });
}

void linear_backward_input(const LinearBackwardInput& op, CudaContext& context) {
  int64_t R = op.dy.rows(), N = op.weight.dim(0), K = op.weight.dim(1);
  multiply({R, K, N, matrix(op.dy, N), matrix(op.weight, K), matrix(op.dx, K), op.accumulate, {}}, context);
}

void linear_backward_weight(const LinearBackwardWeight& op, CudaContext& context) {
  int64_t R = op.dy.rows(), N = op.dweight.dim(0), K = op.dweight.dim(1);
  Gemm g{N, K, R, matrix(op.dy, N, true), matrix(op.x, K), matrix(op.dweight, K), op.accumulate, {}};
  Product product(g, context);
  // Rounded up, so that the sums of dbias start aligned. An absent dbias has no elements.
  size_t own = (product.scratch_bytes() + 255) / 256 * 256, floats = size_t(bias_slabs(R) * (op.dbias ? N : 0));
  char* scratch = context.scratch<char>(int64_t(own + floats * sizeof(float)));
  product.run(scratch);
  if (op.dbias) sum_bias(op, reinterpret_cast<float*>(scratch + own), context);
}

DS_CUDA_KERNEL(Linear, linear)
DS_CUDA_KERNEL(LinearBackwardInput, linear_backward_input)
DS_CUDA_KERNEL(LinearBackwardWeight, linear_backward_weight)

}  // namespace ds::cuda
