#include "measure.h"

#include <cstring>

#include "../../runtime/pool.h"
#include "vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGrain = 16384;
constexpr int kChains = 12;  // independent sums: enough to hide the latency of an addition

void stream_copy(float* to, const float* from, int64_t n) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + kLanes <= n; i += kLanes) _mm512_stream_ps(to + i, __m512(load(from + i)));
#elif defined(__AVX2__)
  for (; i + kLanes <= n; i += kLanes) _mm256_stream_ps(to + i, __m256(load(from + i)));
#endif
  std::memcpy(to + i, from + i, size_t(n - i) * sizeof(float));
}

// Keeps the compiler from dropping what nobody reads.
void consume(Vec v) { asm volatile("" ::"x"(v)); }

void read(const float* a, int64_t n) {
  Vec totals[4] = {};
  for (int64_t i = 0; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int k = 0; k < 4; ++k) totals[k] += load(a + i + k * kLanes);
  consume(totals[0] + totals[1] + totals[2] + totals[3]);
}

void multiply_add(int64_t n) {
  Vec sums[kChains], x = splat(0.999f), y = splat(1e-3f);
  for (int k = 0; k < kChains; ++k) sums[k] = splat(float(k));
  for (int64_t step = 0; step < n * kRooflineSteps / (kLanes * kChains); ++step)
    for (int k = 0; k < kChains; ++k) sums[k] = fma(sums[k], x, y);
  for (int k = 0; k < kChains; ++k) consume(sums[k]);
}

void piece(const RooflinePass& pass, int64_t begin, int64_t n) {
  float *a = pass.a + begin, *b = pass.b + begin, *c = pass.c + begin, *d = pass.d + begin;
  switch (pass.kind) {
    case Roofline::memcpy:
      std::memcpy(a, b, size_t(n) * sizeof(float));
      break;
    case Roofline::stream_copy:
      stream_copy(a, b, n);
      break;
    case Roofline::read:
      read(a, n);
      break;
    case Roofline::triad:
      for_lanes(n, [&](auto load_at, auto store_at) { store_at(a, load_at(b) + 3.0f * load_at(c)); });
      break;
    case Roofline::adam_mix:
      for_lanes(n, [&](auto load_at, auto store_at) {
        Vec g = load_at(d);
        store_at(a, load_at(a) + g);
        store_at(b, load_at(b) + g);
        store_at(c, load_at(c) + g);
      });
      break;
    case Roofline::fma:
      multiply_add(n);
      break;
  }
}

}  // namespace

void roofline_pass(const RooflinePass& pass) {
  parallel_ranges(pass.n, kGrain, [&](int64_t begin, int64_t end) { piece(pass, begin, end - begin); });
}

}  // namespace ds::DS_ISA
