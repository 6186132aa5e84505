// The largest |key| of every block of keys of every head: with ALiBi it tells which blocks are too far away to matter.
#pragma once
#include "../../runtime/pool.h"
#include "blocks.h"

namespace ds::DS_ISA {

// A running maximum in which a NaN counts as infinity: its block must not be skipped.
struct Largest {
  float value = 0;
  void add(float x) { value = x <= value ? value : x == x ? x : INFINITY; }
};

template <class T>
float largest_square(const Rows<T>& keys, int64_t first, int64_t n, int64_t D) {
  Largest largest;
  for (int64_t j = first; j < first + n; ++j) largest.add(squared_norm(keys.row(j), D));
  return largest.value;
}

class KeyNorms {
 public:
  // For `queries` over `keys` of B sequences. Heads whose bias cannot reach kNegligible, and calls of a few queries,
  // for which looking at every key would not pay, have none.
  KeyNorms(const Tensor& slopes, int64_t B, int64_t H, int64_t keys, int64_t queries)
      : keys_(keys), blocks_((keys + kKeyBlock - 1) / kKeyBlock), wanted_(size_t(B * H)) {
    if (!slopes.present || queries < 16) return;
    for (int64_t i = 0; i < B * H; ++i)
      wanted_[size_t(i)] = std::fabs(slopes.as<float>()[i % H]) * kLog2E * float(keys) > -kNegligible;
    norms_.resize(size_t(B * H * blocks_));
  }
  bool of_head(int64_t head) const { return wanted_[size_t(head)]; }
  float of(int64_t head, int64_t block) const { return norms_[size_t(head * blocks_ + block)]; }

  // largest(head, first, n): the largest square of the keys' lengths, see Largest.
  template <class F>
  void fill(F&& largest) {
    parallel_for(int64_t(norms_.size()), [&](int64_t i) {
      int64_t head = i / blocks_, first = i % blocks_ * kKeyBlock;
      if (of_head(head)) norms_[size_t(i)] = std::sqrt(largest(head, first, std::min(kKeyBlock, keys_ - first)));
    });
  }

 private:
  int64_t keys_, blocks_;
  std::vector<char> wanted_;
  std::vector<float> norms_;
};

}  // namespace ds::DS_ISA
