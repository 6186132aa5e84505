// The pass of an optimizer over its elements: in chunks on the pool, with a rounded copy of the weights on the way.
#pragma once
#include <type_traits>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/vec.h"

namespace ds::DS_ISA {

constexpr int64_t kSweepGrain = 16384;  // elements a chunk: some 460 kB of traffic

// A copy of this many elements is written past the caches: by the end of the pass nothing of it would be left there,
// and a plain store would first read the line that it overwrites.
constexpr int64_t kStreamElements = 1 << 20;

#if defined(__AVX2__)
inline void stream(bf16* p, Vec v) {
  bf16 buffer[kLanes];
  store(buffer, v);
#if defined(__AVX512F__)
  __m256i bits;
  std::memcpy(&bits, buffer, sizeof bits);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), bits);
#else
  __m128i bits;
  std::memcpy(&bits, buffer, sizeof bits);
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), bits);
#endif
}
inline bool can_stream(const void* p) { return reinterpret_cast<uintptr_t>(p) % (kLanes * sizeof(bf16)) == 0; }
inline void finish_stream() { _mm_sfence(); }
#else
inline void stream(bf16* p, Vec v) { store(p, v); }
inline bool can_stream(const void*) { return false; }
inline void finish_stream() {}
#endif

// Elements [begin, end). C: the dtype of the copy, void for none.
template <bool streamed, class C, class Step>
void sweep_chunk(int64_t begin, int64_t end, C* copy, const Step& step) {
  int64_t i = begin;
  if constexpr (streamed) {
    for (; i + kLanes <= end; i += kLanes)
      stream(copy + i, step([i](auto* p) { return load(p + i); }, [i](auto* p, Vec v) { store(p + i, v); }));
    finish_stream();
  }
  for_lanes(end - i, [&](auto load_at, auto store_at) {
    Vec p = step([&](auto* q) { return load_at(q + i); }, [&](auto* q, Vec v) { store_at(q + i, v); });
    if constexpr (!std::is_void_v<C>) store_at(copy + i, p);
  });
}

// Calls step(load_at, store_at) for all of n elements: it advances the state of a vector of them and gives their new
// weights, which also go to `copy` where there is one.
template <class Step>
void sweep(int64_t n, const Optional& copy, const Tensor& grad, const Step& step) {
  auto run = [&]<bool streamed, class C>(C* to) {
    parallel_ranges(n, kSweepGrain, [&](int64_t begin, int64_t end) { sweep_chunk<streamed>(begin, end, to, step); });
  };
  if (!copy) return run.template operator()<false>(static_cast<void*>(nullptr));
  dispatch_float(copy.dtype, [&]<class C>() {
    // Not over the gradient, whose lines are in the cache already.
    if constexpr (std::is_same_v<C, bf16>)
      if (n >= kStreamElements && can_stream(copy.data) && copy.data != grad.data)
        return run.template operator()<true>(copy.as<C>());
    run.template operator()<false>(copy.as<C>());
  });
}

}  // namespace ds::DS_ISA
