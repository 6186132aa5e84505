#include "kernels/elementwise/dropout.h"

#include "cases.h"

namespace ds::test {
namespace {

void dropout(Cases& cases) {
  struct Draw {
    double p;
    int64_t seed, offset;
  };
  // Offsets of more than 32 bits; the last one carries from the counter's lower word into the upper one.
  Draw draws[] = {{0, 3, 0}, {0.1, 4, (int64_t(1) << 40) + 7}, {0.6, (int64_t(1) << 40) + 5, (int64_t(1) << 32) - 4}};
  for (int64_t n : kSizes)
    for (int64_t shift : {0, 1})
      for (DType dtype : kFloats)
        for (auto [p, seed, offset] : draws)
          for (bool residual : {false, true}) {
            cases.begin(shift);
            Dropout op{cases.tensor(dtype, {n}), cases.tensor(dtype, {n}), {}, p, seed, offset};
            if (residual) static_cast<Tensor&>(op.residual) = cases.tensor(dtype, {n});
            std::string what = shape_text(op.x) + " + " + std::to_string(shift) + ", p " + std::to_string(p) +
                               (residual ? " + residual" : "");
            if (n > 8) put(op.x, n - 1, NAN), put(op.x, 3, INFINITY);
            cases.run(op, what, 2, 4);
            op.y = residual ? Tensor(op.residual) : op.x;
            cases.run(op, what + ", in place", 2, 4);
          }
}

const Family family("dropout", dropout);

}  // namespace
}  // namespace ds::test
