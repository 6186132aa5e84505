// Philox4x32-10: random words as a pure function of a key and a counter, so that any element's number can be made again
// anywhere, in any order. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", sec. 3.3, table 2.
#pragma once
#include <cstdint>

#ifdef DS_ISA
#include "vec.h"
#endif

namespace ds {

constexpr uint32_t kPhiloxM0 = 0xD2511F53, kPhiloxM1 = 0xCD9E8D57;  // multipliers
constexpr uint32_t kPhiloxW0 = 0x9E3779B9, kPhiloxW1 = 0xBB67AE85;  // what the key grows by each round
constexpr int kPhiloxRounds = 10;

struct PhiloxWords {
  uint32_t word[4];
};

// The four words of one counter; its upper 64 bits are zero here. constexpr, so that kernels of CUDA may call it.
constexpr PhiloxWords philox(uint64_t counter, uint64_t key) {
  uint32_t x0 = uint32_t(counter), x1 = uint32_t(counter >> 32), x2 = 0, x3 = 0;
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    uint64_t a = uint64_t(kPhiloxM0) * x0, b = uint64_t(kPhiloxM1) * x2;
    x0 = uint32_t(b >> 32) ^ x1 ^ k0;
    x1 = uint32_t(b);
    x2 = uint32_t(a >> 32) ^ x3 ^ k1;
    x3 = uint32_t(a);
    k0 += kPhiloxW0, k1 += kPhiloxW1;
  }
  return {{x0, x1, x2, x3}};
}

}  // namespace ds

#ifdef DS_ISA
namespace ds::DS_ISA {

constexpr int kPhiloxCounters = kLanes / 4;  // counters in one vector of words

// The generator of one key, on vectors.
class Philox {
 public:
  explicit Philox(uint64_t key) {
    for (int lane = 0; lane < kLanes; ++lane) {
      bool first = lane % 4 == 0, third = lane % 4 == 2;
      for (int r = 0; r < kPhiloxRounds; ++r)
        keys_[r][lane] = first   ? uint32_t(key) + uint32_t(r) * kPhiloxW0
                         : third ? uint32_t(key >> 32) + uint32_t(r) * kPhiloxW1
                                 : 0;
      multipliers_[lane] = first ? kPhiloxM0 : third ? kPhiloxM1 : 0;
      low_[lane] = lane % 4 < 2 ? ~0u : 0;
      steps_[lane] = first ? uint32_t(lane / 4) : 0;
    }
  }

  // The words of counters first, first + 1, ... side by side: lane i is word i % 4 of counter first + i / 4.
  UVec words(uint64_t first) const {
    Quad x = ((first - Quad{}) & Quad(low_)) + Quad(steps_);
    // A round in place: the products of the even words are (lo0, hi0, lo1, hi1), the new words (hi1, lo1, hi0, lo0)
    // with the old odd words and the key added to the even ones.
    for (int r = 0; r < kPhiloxRounds; ++r) {
#if defined(__AVX512F__)
      Quad product = Quad(_mm512_mul_epu32(__m512i(x), __m512i(multipliers_)));
      Quad turned = Quad(_mm512_shuffle_epi32(__m512i(product), _MM_PERM_ABCD));
#elif defined(__AVX2__)
      Quad product = Quad(_mm256_mul_epu32(__m256i(x), __m256i(multipliers_)));
      Quad turned = Quad(_mm256_shuffle_epi32(__m256i(product), 0x1B));
#else
      UVec product = UVec((x & 0xffffffffu) * Quad(multipliers_)), reversed;
      for (int lane = 0; lane < kLanes; ++lane) reversed[lane] = product[lane ^ 3];
      Quad turned = Quad(reversed);
#endif
      x = turned ^ (x >> 32) ^ Quad(keys_[r]);
    }
    return UVec(x);
  }

 private:
  typedef uint64_t Quad __attribute__((vector_size(kLanes * 4)));
  UVec keys_[kPhiloxRounds], multipliers_, low_, steps_;
};

}  // namespace ds::DS_ISA
#endif
