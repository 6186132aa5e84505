// How the CPU's paged kernels see pages: the keys and values of one head.
#pragma once
#include <type_traits>

#include "../common/vec.h"
#include "blocks.h"
#include "paged_pages.h"

namespace ds::DS_ISA {

// kLanes elements, of which the second half may lie elsewhere: pages of 8 tokens are half a vector of 16.
#if defined(__AVX512F__)
template <class K>
Vec load_halves(const K* low, const K* high) {
  auto eight = [](const K* p) { return reinterpret_cast<const __m128i*>(p); };
  if constexpr (sizeof(K) == 4) {
    return Vec(_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(low)), _mm256_loadu_ps(high), 1));
  } else if constexpr (sizeof(K) == 2) {
    __m256i both = _mm256_set_m128i(_mm_loadu_si128(eight(high)), _mm_loadu_si128(eight(low)));
    if constexpr (std::is_same_v<K, f16>) return Vec(_mm512_cvtph_ps(both));
    return Vec(_mm512_slli_epi32(_mm512_cvtepu16_epi32(both), 16));
  } else {
    __m128i both = _mm_unpacklo_epi64(_mm_loadl_epi64(eight(low)), _mm_loadl_epi64(eight(high)));
    return Vec(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(both)));
  }
}
constexpr bool kHalvesApart = true;
#else
static_assert(kLanes <= 8);
template <class K>
Vec load_halves(const K* low, const K*) {
  return load(low);
}
constexpr bool kHalvesApart = false;
#endif

// Some vectors of neighbouring tokens that one key-value head has: that of element d is at + d * step.
template <class K>
struct KeyVectors {
  const K *low[kKeyBlock], *high[kKeyBlock];  // high: of the second half, where pages are narrower than a vector
  int64_t step;
  int count;
  bool narrow;

  template <bool kNarrow>
  Vec at(int64_t i, int64_t offset) const {
    if constexpr (kNarrow && kHalvesApart) return load_halves(low[i] + offset, high[i] + offset);
    return load(low[i] + offset);
  }
};

// The tokens of one sequence as one key-value head has them.
template <class K>
class HeadPages {
 public:
  HeadPages(const PagedKeyValues& kv, const int32_t* table, int64_t g)
      : keys_(kv.keys.as<K>() + kv.key_at(0, g, 0, 0)),
        values_(kv.values.as<K>() + kv.value_at(0, g, 0, 0)),
        key_scales_(kv.key_scales ? kv.key_scales.as<float>() + kv.scale_at(0, g, 0) : nullptr),
        value_scales_(kv.value_scales ? kv.value_scales.as<float>() + kv.scale_at(0, g, 0) : nullptr),
        table_(table),
        D_(kv.size()),
        page_(kv.page()),
        stride_(kv.heads() * kv.page()),
        shift_(kv.page() == 8    ? 3
               : kv.page() == 16 ? 4
                                 : 5) {}

  const K* key(int64_t j) const { return keys_ + id(j) * stride_ * D_ + slot(j); }
  const K* value(int64_t j) const { return values_ + (id(j) * stride_ + slot(j)) * D_; }
  bool scaled() const { return key_scales_ != nullptr; }

  // The vectors of the tokens from `start`, a multiple of kLanes, to `end`, of which those before `from` are not looked
  // at: half a vector without a token that is stands for the other half.
  KeyVectors<K> key_vectors(int64_t start, int64_t from, int64_t end) const {
    return vectors<K>(start, from, end, page_, [&](int64_t j) { return key(j); });
  }
  KeyVectors<float> key_scales(int64_t start, int64_t from, int64_t end) const {
    return vectors<float>(start, from, end, 0, [&](int64_t j) { return key_scales_ + id(j) * stride_ + slot(j); });
  }
  KeyVectors<float> value_scales(int64_t start, int64_t from, int64_t end) const {
    return vectors<float>(start, from, end, 0, [&](int64_t j) { return value_scales_ + id(j) * stride_ + slot(j); });
  }
  // Calls fn(j, n) for the tokens j .. j + n - 1 of each page of [from, end).
  template <class F>
  void for_pages(int64_t from, int64_t end, F&& fn) const {
    for (int64_t j = from; j < end;) {
      int64_t next = std::min(end, ((j >> shift_) + 1) << shift_);
      fn(j, next - j);
      j = next;
    }
  }

 private:
  int64_t id(int64_t j) const { return table_[j >> shift_]; }
  int64_t slot(int64_t j) const { return j & (page_ - 1); }

  template <class E, class At>
  KeyVectors<E> vectors(int64_t start, int64_t from, int64_t end, int64_t step, At&& at) const {
    KeyVectors<E> v;
    v.step = step, v.count = 0, v.narrow = page_ < kLanes;
    for (int64_t j = start; j < end; j += kLanes, ++v.count) {
      bool low = !v.narrow || j + page_ > from, high = v.narrow && j + page_ < end;
      v.low[v.count] = at(low ? j : j + page_);
      v.high[v.count] = high ? at(j + page_) : v.low[v.count];
    }
    return v;
  }

  const K *keys_, *values_;
  const float *key_scales_, *value_scales_;
  const int32_t* table_;
  int64_t D_, page_, stride_;
  int shift_;
};

}  // namespace ds::DS_ISA
