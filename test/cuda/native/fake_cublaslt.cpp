// libcublasLt for tests: the part of NVIDIA's interface that we call, from its documentation and in its own names and
// numbers, computing on the CPU. It refuses what the real one would: unknown attributes, sizes and types that don't
// fit, algorithms that are not its own, addresses less aligned than was promised.
#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/dtype.h"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

struct Desc {
  int compute, scale;
  int32_t transA = 0, transB = 0;
  uint32_t epilogue = 1;
  const void* bias = nullptr;
};
struct Layout {
  int type;
  uint64_t rows, cols;
  int64_t ld;
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = 7, alignment[4] = {256, 256, 256, 256};
};
struct Algo {
  uint64_t data[8];
};
struct HeuristicResult {
  Algo algo;
  size_t workspaceSize;
  int state;
  float wavesCount;
  int reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96);

constexpr uint64_t kOwn = 0x5eed;
int products = 0;
bool refusing = false;

double element(const void* data, int type, int64_t i) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[i];
  if (type == CUDA_R_16BF) return ds::to_float(static_cast<const ds::bf16*>(data)[i]);
  return ds::to_float(static_cast<const ds::f16*>(data)[i]);
}
void put(void* data, int type, int64_t i, double x) {
  if (type == CUDA_R_32F)
    static_cast<float*>(data)[i] = float(x);
  else if (type == CUDA_R_16BF)
    static_cast<ds::bf16*>(data)[i] = ds::to_bf16(float(x));
  else
    static_cast<ds::f16*>(data)[i] = ds::to_f16(float(x));
}

bool fits(const Desc& d, const Layout& a, const Layout& b, const Layout& c, const Layout& out) {
  uint64_t m = out.rows, n = out.cols, k = d.transA ? a.rows : a.cols;
  return (d.transA ? a.cols : a.rows) == m && (d.transB ? b.cols : b.rows) == k && (d.transB ? b.rows : b.cols) == n &&
         c.rows == m && c.cols == n && a.ld >= int64_t(a.rows) && b.ld >= int64_t(b.rows) && c.ld >= int64_t(c.rows) &&
         out.ld >= int64_t(out.rows) && d.compute == 68 && d.scale == CUDA_R_32F && a.type == b.type &&
         c.type == out.type && (out.type == a.type || out.type == CUDA_R_32F);
}

// Everything the queued product needs; kept for ever, because a graph may run it again.
struct Product {
  Desc desc;
  Layout a, b, c, d;
  float alpha, beta;
  const void *A, *B, *C;
  void *D, *workspace;
  size_t workspaceSize;

  void run() const {
    std::memset(workspace, 0xff, workspaceSize);
    int64_t depth = int64_t(desc.transA ? a.rows : a.cols);
    std::vector<float> columns(size_t(depth) * d.cols);  // of op(B)
    for (int64_t j = 0; j < int64_t(d.cols); ++j)
      for (int64_t k = 0; k < depth; ++k)
        columns[size_t(j * depth + k)] = float(element(B, b.type, desc.transB ? k * b.ld + j : j * b.ld + k));
    std::vector<float> row(size_t(depth), 0.0f);
    for (int64_t i = 0; i < int64_t(d.rows); ++i) {
      for (int64_t k = 0; k < depth; ++k)
        row[size_t(k)] = float(element(A, a.type, desc.transA ? i * a.ld + k : k * a.ld + i));
      for (int64_t j = 0; j < int64_t(d.cols); ++j) {
        double sum = 0;
        for (int64_t k = 0; k < depth; ++k) sum += double(row[size_t(k)]) * columns[size_t(j * depth + k)];
        double result = alpha * sum;
        if (beta != 0) result += beta * element(C, c.type, j * c.ld + i);
        if (desc.epilogue == 4) result += element(desc.bias, d.type, i);
        put(D, d.type, j * d.ld + i, result);
      }
    }
  }
};

template <class Value>
Status set(Value& field, const void* value, size_t bytes) {
  if (bytes != sizeof(Value)) return INVALID_VALUE;
  std::memcpy(&field, value, bytes);
  return SUCCESS;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int fake_cublaslt_products() { return products; }
EXPORT void fake_cublaslt_refuse(bool refuse) { refusing = refuse; }

EXPORT size_t cublasLtGetVersion() { return 130102; }
EXPORT int cublasLtCreate(void** handle) {
  static int context;
  *handle = &context;
  return SUCCESS;
}

EXPORT int cublasLtMatmulDescCreate(Desc** desc, int compute, int scale) {
  *desc = new Desc{compute, scale};
  return SUCCESS;
}
EXPORT int cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* value, size_t bytes) {
  switch (attribute) {
    case 3:
      return set(desc->transA, value, bytes);
    case 4:
      return set(desc->transB, value, bytes);
    case 7:
      return set(desc->epilogue, value, bytes);
    case 8:
      return set(desc->bias, value, bytes);
    default:
      return INVALID_VALUE;
  }
}

EXPORT int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  *layout = new Layout{type, rows, cols, ld};
  return SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceCreate(Preference** preference) {
  *preference = new Preference;
  return SUCCESS;
}
EXPORT int cublasLtMatmulPreferenceDestroy(Preference* preference) {
  delete preference;
  return SUCCESS;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value,
                                                size_t bytes) {
  if (attribute == 1) return set(preference->workspace, value, bytes);
  if (attribute == 3) return set(preference->reductions, value, bytes);
  if (attribute >= 5 && attribute <= 8) return set(preference->alignment[attribute - 5], value, bytes);
  return INVALID_VALUE;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, Desc* desc, Layout* a, Layout* b, Layout* c, Layout* d,
                                          Preference* preference, int requested, HeuristicResult* results,
                                          int* returned) {
  *returned = 0;
  if (requested < 1 || !fits(*desc, *a, *b, *c, *d) || (desc->epilogue == 4 && !desc->bias)) return INVALID_VALUE;
  if (refusing) return NOT_SUPPORTED;
  results[0] = {};
  results[0].algo = {{kOwn, preference->workspace, preference->alignment[0], preference->alignment[1],
                      preference->alignment[2], preference->alignment[3], preference->reductions, 0}};
  results[0].workspaceSize = preference->workspace;
  *returned = 1;
  return SUCCESS;
}

EXPORT int cublasLtMatmul(void*, Desc* desc, const float* alpha, const void* A, Layout* a, const void* B, Layout* b,
                          const float* beta, const void* C, Layout* c, void* D, Layout* d, const Algo* algo,
                          void* workspace, size_t workspaceSize, cudaStream_t stream) {
  auto aligned = [](const void* p, uint64_t to) { return to >= 1 && reinterpret_cast<uintptr_t>(p) % to == 0; };
  const uint64_t* promised = algo->data;
  if (promised[0] != kOwn || promised[1] > workspaceSize || promised[6] != 2 || !aligned(workspace, 256) ||
      !aligned(A, promised[2]) || !aligned(B, promised[3]) || !aligned(C, promised[4]) || !aligned(D, promised[5]) ||
      !fits(*desc, *a, *b, *c, *d) || (C == D && c->ld != d->ld) || (desc->epilogue != 1 && desc->epilogue != 4))
    return INVALID_VALUE;
  static std::mutex mutex;
  static std::vector<std::unique_ptr<Product>> queued;
  std::lock_guard lock(mutex);
  ++products;
  queued.push_back(
      std::make_unique<Product>(Product{*desc, *a, *b, *c, *d, *alpha, *beta, A, B, C, D, workspace, workspaceSize}));
  auto run = [](void* product) { static_cast<const Product*>(product)->run(); };
  return cudaLaunchHostFunc(stream, run, queued.back().get()) == cudaSuccess ? SUCCESS : INVALID_VALUE;
}
