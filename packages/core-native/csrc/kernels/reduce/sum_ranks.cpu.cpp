#include "sum_ranks.h"

#include "../common/dispatch.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

// Keeps the compiler from contracting a product and a later sum into one fused operation: the sum's definition has
// two roundings, on every machine.
inline Vec rounded(Vec v) {
#if defined(__AVX512F__)
  asm("" : "+v"(v));
#elif defined(__x86_64__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+m"(v));
#endif
  return v;
}

inline void stream_store(float* p, Vec v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, __m512(v));
#elif defined(__AVX2__)
  _mm256_stream_ps(p, __m256(v));
#else
  store(p, v);
#endif
}

inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

template <class T>
Vec sum_at(const T* const* sources, int ranks, auto load_at) {
  Vec total = load_at(sources[0]);
  for (int j = 1; j < ranks; ++j) total += load_at(sources[j]);
  return total;
}

template <class T, class U>
void sum(const SumRanks& op) {
  auto sources = reinterpret_cast<const T* const*>(op.sources);
  U* out = static_cast<U*>(op.out);
  float scale = float(op.scale);
  bool aligned = reinterpret_cast<uintptr_t>(out) % (kLanes * sizeof(float)) == 0;
  auto body = [&]<int kRanks>() {
    int ranks = kRanks ? kRanks : op.ranks;
    int64_t begin = 0;
    if constexpr (sizeof(U) == sizeof(float)) {
      if (op.stream && aligned && !op.accumulate) {
        for (; begin + kLanes <= op.n; begin += kLanes)
          stream_store(out + begin, sum_at<T>(sources, ranks, [begin](const T* p) { return load(p + begin); }) * scale);
        stream_fence();
      }
    }
    for_lanes(op.n - begin, [&](auto load_at, auto store_at) {
      Vec v = sum_at<T>(sources, ranks, [&](const T* p) { return load_at(p + begin); }) * scale;
      store_at(out + begin, op.accumulate ? load_at(out + begin) + rounded(v) : v);
    });
  };
  if (op.ranks == 2) return body.template operator()<2>();
  body.template operator()<0>();
}

void sum_f64(const SumRanks& op) {
  auto sources = reinterpret_cast<const double* const*>(op.sources);
  double* out = static_cast<double*>(op.out);
  for (int64_t i = 0; i < op.n; ++i) {
    double total = sources[0][i];
    for (int j = 1; j < op.ranks; ++j) total += sources[j][i];
    volatile double scaled = total * op.scale;  // rounded before it is added
    out[i] = op.accumulate ? out[i] + scaled : scaled;
  }
}

}  // namespace

void sum_ranks(const SumRanks& op) {
  if (op.dtype == DType::f64) return sum_f64(op);
  dispatch_float(op.dtype, [&]<class T>() {
    if (op.out_dtype == op.dtype) return sum<T, T>(op);
    sum<T, float>(op);
  });
}

}  // namespace ds::DS_ISA
