#include "library_gemm.h"

#include "../../runtime/pool.h"
#ifdef DS_HAVE_OPENBLAS
#include <cblas.h>
#endif

#include <atomic>
#include <mutex>

namespace ds {
namespace {
std::atomic<GemmChoice> chosen{GemmChoice::automatic};
}

GemmChoice gemm_choice() { return chosen.load(std::memory_order_relaxed); }
void set_gemm_choice(GemmChoice choice) { chosen = choice; }

#ifdef DS_HAVE_OPENBLAS

}  // namespace ds

// The serial OpenBLAS is built without locks: two threads that ask for a packing buffer at the same moment may be given
// the same one, and then both products are wrong (seen in 1 of 300 small ones on a busy machine). The linker sends its
// calls here (--wrap in CMakeLists.txt).
extern "C" {
void* __real_blas_memory_alloc(int position);
void __real_blas_memory_free(void* buffer);

static std::mutex& openblas_buffers() {
  static std::mutex mutex;
  return mutex;
}
void* __wrap_blas_memory_alloc(int position) {
  std::lock_guard lock(openblas_buffers());
  return __real_blas_memory_alloc(position);
}
void __wrap_blas_memory_free(void* buffer) {
  std::lock_guard lock(openblas_buffers());
  __real_blas_memory_free(buffer);
}
}

namespace ds {

bool has_library_gemm() { return true; }

void library_gemm(const LibraryGemm& g) {
  if (g.M == 0 || g.N == 0) return;
  // Two to eight slices of the larger side: enough for a worker that lost its core to be helped out; few, because every
  // slice packs the other operand again (eight of 96 rows cost a fifth of the speed). Cut by the problem alone, in
  // multiples of 16 so that slices end where the library's kernels do.
  constexpr int64_t kMostSlices = 8, kLeastRows = 768, kGrain = 16;
  bool rows = g.M >= g.N;
  int64_t side = rows ? g.M : g.N, slices = 2;
  while (slices < kMostSlices && side >= 2 * slices * kLeastRows) slices *= 2;
  int64_t piece = ((side + slices - 1) / slices + kGrain - 1) / kGrain * kGrain;
  parallel_ranges(side, piece, [&](int64_t begin, int64_t end) {
    const float* a = rows ? g.a + (g.a_transposed ? begin : begin * g.a_stride) : g.a;
    const float* b = rows ? g.b : g.b + (g.b_transposed ? begin * g.b_stride : begin);
    float* c = g.c + (rows ? begin * g.c_stride : begin);
    cblas_sgemm(CblasRowMajor, g.a_transposed ? CblasTrans : CblasNoTrans, g.b_transposed ? CblasTrans : CblasNoTrans,
                blasint(rows ? end - begin : g.M), blasint(rows ? g.N : end - begin), blasint(g.K), 1.0f, a,
                blasint(g.a_stride), b, blasint(g.b_stride), g.accumulate ? 1.0f : 0.0f, c, blasint(g.c_stride));
  });
}

#else

bool has_library_gemm() { return false; }
void library_gemm(const LibraryGemm&) {}

#endif

}  // namespace ds
