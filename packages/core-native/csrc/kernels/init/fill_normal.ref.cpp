#include <cmath>

#include "../common/philox.h"
#include "../common/ref.h"
#include "fill_normal.h"

namespace ds {

double standard_normal(uint64_t seed, uint64_t i) {
  PhiloxWords words = philox(i / 2, seed);
  double u = (words.word[0] + 0.5) * 0x1p-32, angle = words.word[1] * (2 * M_PI * 0x1p-32);
  double radius = std::sqrt(-2 * std::log(u));
  return radius * (i % 2 ? std::sin(angle) : std::cos(angle));
}

void FillNormal::ref() const {
  for (int64_t i = 0; i < y.numel(); ++i) put(y, i, mean + std * standard_normal(uint64_t(seed), uint64_t(offset + i)));
}

}  // namespace ds
