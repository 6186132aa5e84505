// What a query sees of a key beside their product, on the device: bias, visibility, dropout; see attention.h.
#pragma once
#include "../../cuda/reduce.cuh"
#include "../common/philox.h"
#include "mma_tile.cuh"
#include "tile_lists.cuh"

namespace ds::cuda {

constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;
// As on the CPU: in units of log 2, a probability this far below the row's largest counts as 0.
constexpr float kNegligible = -100.0f;

struct Sight {
  const float* slopes;  // [H] or null
  const uint8_t* mask;  // [B, mask_stride] or null
  int64_t mask_stride;
  const float* positions;  // [B, keys], or null where token j is at position j
  const float* added;      // [T, T] for each head, added_head apart; or null
  int64_t added_head;
  const float* norms;  // [B, H, norm_parts, 2], see reach(); or null
  int norm_parts;
  int keys;     // of a sequence
  float scale;  // in units of log 2
  bool causal;
  bool drops;
  uint32_t threshold;  // kept: (word >> 8) >= threshold
  uint64_t seed, offset;
};

// The sight of one head of one sequence. What is the same for all stays in the kernel's arguments.
class HeadSight {
 public:
  float slope;  // in units of log 2

  __device__ HeadSight(const Sight& all, int b, int h, int heads)
      : slope(all.slopes ? all.slopes[h] * kLog2E : 0.0f), all_(all), b_(b), h_(h), heads_(heads) {}

  __device__ float scale() const { return all_.scale; }
  __device__ int keys() const { return all_.keys; }
  __device__ bool causal() const { return all_.causal; }
  __device__ bool biased() const { return slope != 0; }
  __device__ bool masked() const { return all_.mask != nullptr; }
  __device__ bool drops() const { return all_.drops; }
  // The bias of the head's pairs [T, T], or null.
  __device__ const float* added() const { return all_.added ? all_.added + h_ * all_.added_head : nullptr; }

  // Of any token; those behind the last one stand where it does.
  __device__ float position(int token) const {
    if (!all_.positions) return float(token);
    return positions()[token < keys() ? token : keys() - 1];
  }
  // Of a key; -infinity for one that nobody sees.
  __device__ float key_position(int token) const {
    bool hidden = token >= keys() || (masked() && !all_.mask[b_ * all_.mask_stride + token]);
    return hidden ? -INFINITY : position(token);
  }
  // Whether key positions tell more than the numbers of the tokens.
  __device__ bool has_positions() const { return biased() || masked(); }

  // The first token of [0, keys] at or behind a position.
  __device__ int first_at(float position_wanted) const {
    if (!all_.positions) {
      float first = ceilf(position_wanted);
      return first <= 0 ? 0 : first < float(keys()) ? int(first) : keys();
    }
    int begin = 0, end = keys();
    while (begin < end) {
      int middle = (begin + end) / 2;
      if (positions()[middle] < position_wanted)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin;
  }

  // Bit i: whether dropout keeps the pair of this query with key + i.
  __device__ uint32_t kept_two(int query, int key) const {
    uint64_t element = this->element(query, key), counter = all_.offset + element / 4;
    int at = int(element % 4);
    PhiloxWords words = philox(counter, all_.seed);
    uint32_t first = word(words, at), second = word(words, at + 1);
    if (at == 3) second = philox(counter + 1, all_.seed).word[0];
    return uint32_t(first >> 8 >= all_.threshold) | uint32_t(second >> 8 >= all_.threshold) << 1;
  }
  __device__ bool kept(int query, int key) const {
    uint64_t element = this->element(query, key);
    return word(philox(all_.offset + element / 4, all_.seed), int(element % 4)) >> 8 >= all_.threshold;
  }

  // 2^(score - base)
  __device__ float probability(float score, float base) const {
    float x = score - base;
    return biased() && x < kNegligible ? 0.0f : exp2_fast(x);
  }

 private:
  // By selection: an index would put the words into memory.
  static __device__ uint32_t word(const PhiloxWords& words, int i) {
    return i == 0 ? words.word[0] : i == 1 ? words.word[1] : i == 2 ? words.word[2] : words.word[3];
  }

  __device__ const float* positions() const { return all_.positions + int64_t(b_) * keys(); }
  // The number of a pair among all of [B, H, T, T].
  __device__ uint64_t element(int query, int key) const {
    return uint64_t(((int64_t(b_) * heads_ + h_) * keys() + query) * keys() + key);
  }

  const Sight& all_;
  int b_, h_, heads_;
};

// How many positions a query looks back at most: with a rising bias, keys further away are negligible to every query of
// the head. By Cauchy and Schwarz no product passes |query| |key|, and the nearest visible key stands at the query's
// own position, so that the row's largest score is at least -|query| |key|; one per cent covers the products' rounding.
// Keys beyond have a probability that HeadSight::probability makes 0, so leaving them out changes no bit. Every lane of
// a warp must call it.
__device__ inline float reach(const Sight& s, const HeadSight& head, int64_t bh) {
  if (!s.norms || !(head.slope > 0)) return INFINITY;
  float query = 0, key = 0;  // squares
  for (int i = int(threadIdx.x) % kWarp; i < s.norm_parts; i += kWarp) {
    const float* part = s.norms + (bh * s.norm_parts + i) * 2;
    query = Max()(part[0], query), key = Max()(part[1], key);
  }
  query = warp_reduce<Max>(query), key = warp_reduce<Max>(key);
  float far = (2.02f * fabsf(s.scale) * sqrtf(query) * sqrtf(key) - kNegligible + 1) / head.slope;
  return far >= 0 ? far : INFINITY;  // not for NaN
}

// Turns products into scores in units of log 2, -infinity where the query does not see the key. kOwnKeys: whether the
// own rows are keys and the others queries, or the other way round. kRare: whether there may be an added bias.
template <bool kOwnKeys, bool kRare, int kM, int kN, class Place>
__device__ __forceinline__ void to_scores(Sums<kM, kN>& s, const HeadSight& sight, int own_token, const Place& place,
                                          const float* other_position, uint32_t met, bool cut) {
  int t = int(threadIdx.x) % 4;
  float own_position[kM][2] = {};
  if (sight.has_positions()) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int own = own_token + m * 16 + half * 8;
        own_position[m][half] = kOwnKeys ? sight.key_position(own) : sight.position(own);
      }
  }
  // Passes of their own, each behind a branch that all threads take or none: most calls need one or two.
  auto for_elements = [&](auto&& body) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      int token = place.start(n / 2) + n % 2 * 8 + 2 * t;
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          int own = own_token + m * 16 + e / 2 * 8, other = token + e % 2;
          body(s.at[m][n][e], m, n, e, kOwnKeys ? other : own, kOwnKeys ? own : other);
        }
    }
  };
  if (sight.biased()) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      Pack<float, 2> other = load<2>(other_position + n * 8 + 2 * t);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float distance =
              kOwnKeys ? own_position[m][e / 2] - other.at[e % 2] : other.at[e % 2] - own_position[m][e / 2];
          s.at[m][n][e] = fmaf(sight.slope, distance, s.at[m][n][e] * sight.scale());
        }
    }
  } else {
    for_elements([&](float& x, int, int, int, int, int) { x *= sight.scale(); });
  }
  if (kRare && sight.added())
    for_elements([&](float& x, int, int, int, int query, int key) {
      if (query < sight.keys() && key < sight.keys())
        x = fmaf(sight.added()[int64_t(query) * sight.keys() + key], kLog2E, x);
    });
  if (cut)
    for_elements([&](float& x, int, int n, int, int query, int key) {
      if ((sight.causal() && key > query) || key >= sight.keys() || !(met >> n / 2 & 1)) x = -INFINITY;
    });
  if (sight.masked())
    for_elements([&](float& x, int m, int n, int e, int, int) {
      float position = kOwnKeys ? own_position[m][e / 2] : other_position[n * 8 + 2 * t + e % 2];
      if (position == -INFINITY) x = -INFINITY;
    });
}

// Whether a tile may hold pairs that do not see each other, for a warp's rows from token `own` on; met: its groups.
template <bool kOwnKeys, class Place>
__device__ __forceinline__ bool is_cut(const HeadSight& sight, int own, int own_rows, const Place& place,
                                       uint32_t met) {
  constexpr int kGroups = Place::kGroups;
  int first = place.start(0), last = place.start(kGroups - 1) + kGroup - 1;
  bool diagonal = sight.causal() && (kOwnKeys ? own + own_rows - 1 > first : last > own);
  bool beyond = !kOwnKeys && last >= sight.keys();
  return diagonal || beyond || met != (1u << kGroups) - 1;
}

// Which pairs dropout keeps: bit 4 n + e of [m] for element e of [m][n].
template <bool kOwnKeys, int kN, int kM, class Place>
__device__ __forceinline__ void draw(uint32_t (&kept)[kM], const HeadSight& sight, int own_token, const Place& place) {
  int t = int(threadIdx.x) % 4;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    kept[m] = 0;
#pragma unroll 1
    for (int n = 0; n < kN; ++n) {
      int token = place.token(n * 8) + 2 * t;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        int own = own_token + m * 16 + half * 8;
        uint32_t two = kOwnKeys ? uint32_t(sight.kept(token, own)) | uint32_t(sight.kept(token + 1, own)) << 1
                                : sight.kept_two(own, token);
        kept[m] |= two << (n * 4 + half * 2);
      }
    }
  }
}

}  // namespace ds::cuda
