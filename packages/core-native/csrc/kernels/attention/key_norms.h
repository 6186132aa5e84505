// The largest |key| of every block of keys of every head: with ALiBi it tells which blocks are too far away to matter.
#pragma once
#include "../../runtime/pool.h"
#include "blocks.h"

namespace ds::DS_ISA {

class KeyNorms {
 public:
  // Without `wanted` (no bias that falls with the distance) nothing is held.
  KeyNorms(int64_t heads, int64_t T, bool wanted)
      : heads_(wanted ? heads : 0), T_(T), blocks_((T + kKeyBlock - 1) / kKeyBlock) {
    norms_.resize(size_t(heads_ * blocks_));
  }
  explicit operator bool() const { return heads_ > 0; }
  float of(int64_t head, int64_t block) const { return norms_[size_t(head * blocks_ + block)]; }

  // squared(head, j): |key j|^2. A NaN must not let its block be skipped.
  template <class Squared>
  void fill(Squared&& squared) {
    parallel_for(heads_ * blocks_, [&](int64_t i) {
      int64_t head = i / blocks_, first = i % blocks_ * kKeyBlock, end = std::min(T_, first + kKeyBlock);
      float largest = 0;
      for (int64_t j = first; j < end; ++j) {
        float norm = squared(head, j);
        largest = norm <= largest ? largest : norm == norm ? norm : INFINITY;
      }
      norms_[size_t(i)] = std::sqrt(largest);
    });
  }

 private:
  int64_t heads_, T_, blocks_;
  std::vector<float> norms_;
};

}  // namespace ds::DS_ISA
