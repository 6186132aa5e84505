// What the attention kernels share: how queries and keys are cut, packed and scored.
//
// Queries are the lanes: a strip of kStrip queries meets blocks of kKeyBlock keys, scores lie as [key, query], so that
// maxima and sums over keys need no work across lanes and a query's bits do not depend on its neighbours.
// Scores are held in units of log 2: the query is multiplied by scale * log2(e) when it is packed.
#pragma once
#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <vector>

#include "../common/vec.h"
#include "attention.h"
#include "transpose.h"

namespace ds::DS_ISA {

constexpr int64_t kKeyBlock = 64;
#if defined(__AVX512F__)
constexpr int64_t kStrip = 64;
#else
constexpr int64_t kStrip = 48;
#endif
static_assert(kStrip % kLanes == 0);

constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
// 2^-100 = 8e-31: far below what f32 resolves beside a term of size 1, and far enough above its smallest normal number
// that products with values and gradients stay clear of subnormals, which are slow.
constexpr float kNegligible = -100.0f;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// 2^x for x <= 0 (a little above is fine) within 1 ulp, 0 below 2^-100. Polynomial: minimax in relative error on
// [-1/2, 1/2] with the constant fixed to 1, so that 2^0 is exact.
inline Vec exp2_negative(Vec x) {
  const float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which stands in the low bits
  Vec shifted = x + kMagic, r = x - (shifted - kMagic);
  Vec p = splat(1.5353361959569156e-4f);
  p = p * r + 1.3398875016719103e-3f;
  p = p * r + 9.61843691766262e-3f;
  p = p * r + 5.5503323674201965e-2f;
  p = p * r + 0.24022647738456726f;
  p = p * r + 0.6931471824645996f;
  p = p * r + 1.0f;
  // Unsigned: far below, where the result is thrown away, the sum wraps.
  Vec power = as_float((as_uint(shifted) << 23) + as_uint(p));
  return select(x < kNegligible, Vec{}, power);
}

// Memory of a thread for its blocks: grows to the largest request and is reused.
inline float* scratch(int64_t floats) {
  struct Free {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  thread_local std::unique_ptr<float[], Free> memory;
  thread_local int64_t size = 0;
  if (floats > size) {
    memory.reset();
    memory.reset(static_cast<float*>(::operator new[](size_t(floats) * 4, std::align_val_t(64))));
    size = floats;
  }
  return memory.get();
}

// Hands out pieces of the scratch memory, each on a cache line. Without memory it only counts.
struct Pieces {
  float* at;
  int64_t used = 0;
  float* take(int64_t floats) {
    float* piece = at ? at + used : nullptr;
    used += round_up(floats, 16);
    return piece;
  }
};

// Makes a Layout, a struct that takes its arrays from the Pieces it is made with, in the thread's scratch memory.
template <class Layout>
Layout in_scratch(auto... sizes) {
  Pieces counted{nullptr};
  Layout{counted, sizes...};
  Pieces pieces{scratch(counted.used)};
  return Layout{pieces, sizes...};
}

// Rows of D elements, `stride` elements apart.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
  T* row(int64_t i) const { return data + i * stride; }
};

// Query, key or value (0, 1, 2) rows of a head in a fused [B, T, H, 3, D] tensor.
template <class T>
Rows<T> head_rows(const Tensor& qkv, const AttentionShape& s, int64_t b, int64_t h, int64_t which) {
  return {qkv.as<T>() + ((b * s.T * s.H + h) * 3 + which) * s.D, 3 * s.H * s.D};
}
template <class T>
Rows<T> out_rows(const Tensor& out, const AttentionShape& s, int64_t b, int64_t h) {
  return {out.as<T>() + (b * s.T * s.H + h) * s.D, s.H * s.D};
}

// Rows of one head are pages apart, where no hardware prefetcher follows.
template <class T>
void prefetch_row(const T* row, int64_t D) {
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < D * int64_t(sizeof(T)); i += 64) __builtin_prefetch(bytes + i);
}

// Rows first .. first + n - 1 to f32 [padded, ld], times `factor`; what is beyond n and D is zero.
template <class T>
void pack_rows(const Rows<T>& from, int64_t first, int64_t n, int64_t D, float* to, int64_t ld, float factor = 1,
               int64_t padded = 0) {
  constexpr int64_t kAhead = 8;
  for (int64_t i = 0; i < std::min(kAhead, n); ++i) prefetch_row(from.row(first + i), D);
  for (int64_t i = 0; i < n; ++i) {
    if (i + kAhead < n) prefetch_row(from.row(first + i + kAhead), D);
    const T* row = from.row(first + i);
    float* target = to + i * ld;
    for_lanes(D, [&](auto load_at, auto store_at) { store_at(target, load_at(row) * factor); });
    for (int64_t d = D; d < ld; ++d) target[d] = 0;
  }
  if (n < padded) std::fill(to + n * ld, to + padded * ld, 0.0f);
}

template <class T>
float squared_norm(const T* row, int64_t D) {
  Vec total{};
  for_lanes(D, [&](auto load_at, auto) {
    Vec x = load_at(row);
    total = x * x + total;
  });
  return sum(total);
}

// Which keys of a sequence count, and where they stand: position[j] = max(0, real tokens up to j - 1).
class Places {
 public:
  // mask: [B, stride] u8 with at least T columns, or null.
  Places(const uint8_t* mask, int64_t stride, int64_t B, int64_t T) : mask_(mask), stride_(stride), T_(T) {
    position_.resize(size_t(mask ? B * T : T));
    for (int64_t b = 0; b < (mask ? B : 1); ++b)
      for (int64_t j = 0, real = 0; j < T; ++j) {
        real += !mask || mask[b * stride + j] != 0;
        position_[size_t(b * T + j)] = float(std::max<int64_t>(0, real - 1));
      }
  }
  const float* position(int64_t b) const { return position_.data() + (mask_ ? b * T_ : 0); }
  // Null when every key counts.
  const uint8_t* mask(int64_t b) const { return mask_ ? mask_ + b * stride_ : nullptr; }

 private:
  const uint8_t* mask_;
  int64_t stride_, T_;
  std::vector<float> position_;
};

// The bias and the visibility of one head, in units of log 2.
struct Sight {
  bool causal;
  float slope;            // times log2(e)
  const float* position;  // [T]
  const uint8_t* mask;    // [T] or null
  // A bias of every pair, as it is (not in units of log 2): [T, T], of which `added` is the first element, or null.
  const float* added = nullptr;
  int64_t T = 0;
  int64_t window = 0;  // how many tokens a query sees, itself the last; 0: all

  // Whether the query does not see the key for its window.
  bool leaves_behind(int64_t key, int64_t query) const { return window > 0 && query - key >= window; }

  // The largest bias that a key of [first, first + n) has for a query at position 0; positions never fall.
  float largest_bias(int64_t first, int64_t n) const {
    return std::max(slope * position[first], slope * position[first + n - 1]);
  }
  // Adds the bias to the scores [n, width] of whole vectors of queries and fours of keys.
  void add(int64_t first_query, int64_t width, int64_t first_key, int64_t n, float* scores) const {
    for (int64_t c = 0; c < width; c += kLanes)
      for (int64_t j = 0; j < n; j += 4) {
        Vec column[4];
        read_columns(added + (first_query + c) * T + first_key + j, T, column);
        for (int k = 0; k < 4; ++k) {
          float* at = scores + (j + k) * width + c;
          store(at, column[k] * kLog2E + load(at));
        }
      }
  }
  bool all_visible(int64_t first, int64_t n) const {
    return !mask || std::find(mask + first, mask + first + n, uint8_t(0)) == mask + first + n;
  }
};

// Where the diagonal cuts a block of scores, the block is worked in steps of this many keys: the step at key j needs
// the queries (columns) from first_column on, and a vector of queries the keys before key_limit, both rounded outwards.
constexpr int64_t kStep = 16;

inline int64_t first_column(int64_t first_query, int64_t key) {
  return std::max<int64_t>(0, key - first_query) / kLanes * kLanes;
}
inline int64_t key_limit(int64_t first_query, int64_t column, int64_t first_key, int64_t n) {
  int64_t last = first_query + column + kLanes - 1 - first_key;
  return last < 0 ? 0 : std::min(n, (last / kStep + 1) * kStep);
}

// Calls body(j, slot) for j = 0 .. n - 1 with the constant slot j % 4: four running values hide the latency of their
// sum or maximum, and fix its order.
template <class Body>
inline void in_four_slots(int64_t n, Body&& body) {
  std::integral_constant<int, 0> zero;
  std::integral_constant<int, 1> one;
  std::integral_constant<int, 2> two;
  std::integral_constant<int, 3> three;
  int64_t j = 0;
  for (; j + 4 <= n; j += 4) body(j, zero), body(j + 1, one), body(j + 2, two), body(j + 3, three);
  if (j < n) body(j, zero);
  if (j + 1 < n) body(j + 1, one);
  if (j + 2 < n) body(j + 2, two);
}

inline IVec lane_numbers() {
  IVec v{};
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

}  // namespace ds::DS_ISA
