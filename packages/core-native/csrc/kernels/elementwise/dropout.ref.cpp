#include "dropout.h"

#include "../common/philox.h"
#include "../common/ref.h"

namespace ds {

void Dropout::ref() const {
  for (int64_t i = 0; i < y.numel(); ++i) {
    uint32_t word = philox(uint64_t(offset + i / 4), uint64_t(seed)).word[i % 4];
    double kept = (word >> 8) >= threshold() ? get(x, i) / (1 - p) : 0;
    put(y, i, kept + (residual ? get(residual, i) : 0));
  }
}

}  // namespace ds
