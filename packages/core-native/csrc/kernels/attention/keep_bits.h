// The dropout mask of one head as bits: which keys of a block each query keeps.
#pragma once
#include "../common/philox.h"
#include "blocks.h"

namespace ds::DS_ISA {

// Bit i is the sign of lane i.
inline uint64_t lane_bits(IVec v) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(__m512i(v));
#elif defined(__AVX2__)
  return uint64_t(_mm256_movemask_ps(__m256(v)));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= uint64_t(v[i] < 0) << i;
  return bits;
#endif
}

class KeepBits {
 public:
  // `row`: number of the head's first row in [B, H, T]; the element (i, j) of the head has the number (row + i) * T +
  // j.
  KeepBits(double p, int64_t seed, int64_t offset, int64_t row, int64_t T)
      : threshold_(dropout_threshold(p)), random_(uint64_t(seed)), offset_(uint64_t(offset)), row_(row), T_(T) {}

  // Makes the bits of queries first .. first + rows - 1 for keys key .. key + n - 1, n <= kKeyBlock.
  void draw(int64_t first, int64_t rows, int64_t key, int64_t n) {
    for (int64_t i = 0; i < rows; ++i) {
      uint64_t element = uint64_t((row_ + first + i) * T_ + key), bits = 0;
      int64_t skip = int64_t(element % 4);  // the first counter's words before our element
      for (int64_t at = -skip; at < n; at += kLanes) {
        UVec words = random_.words(offset_ + uint64_t(int64_t(element) + at) / 4);
        uint64_t kept = lane_bits(IVec((words >> 8) >= threshold_));
        bits |= at < 0 ? kept >> skip : kept << at;
      }
      low_[i] = uint32_t(bits), high_[i] = uint32_t(bits >> 32);
    }
    std::fill(low_ + rows, low_ + kStrip, 0u);
    std::fill(high_ + rows, high_ + kStrip, 0u);
  }

  // All ones in the lanes (queries c .. c + kLanes - 1 of the strip) that keep key j of the block.
  IVec kept(int64_t c, int64_t j) const {
    UVec bits;
    std::memcpy(&bits, (j < 32 ? low_ : high_) + c, sizeof bits);
    return IVec(bits << uint32_t(31 - j % 32)) >> 31;
  }

  // Zeroes what is dropped of the probabilities [n, width].
  void drop(float* p, int64_t first, int64_t rows, int64_t width, int64_t key, int64_t n) {
    draw(first, rows, key, n);
    for (int64_t j = 0; j < n; ++j)
      for (int64_t c = 0; c < width; c += kLanes) {
        float* at = p + j * width + c;
        store(at, as_float(as_int(load(at)) & kept(c, j)));
      }
  }

 private:
  uint32_t threshold_;
  Philox random_;
  uint64_t offset_;
  int64_t row_, T_;
  alignas(64) uint32_t low_[kStrip], high_[kStrip];
};

}  // namespace ds::DS_ISA
