#include "kernels/init/fill_normal.h"

#include "cases.h"

namespace ds::test {
namespace {

void fill_normal(Cases& cases) {
  for (int64_t n : kSizes)
    for (int64_t offset : {int64_t(0), int64_t(7), (int64_t(1) << 33) - 1})
      for (DType dtype : kFloats) {
        cases.begin(n % 2);
        FillNormal op{cases.tensor(dtype, {n}), 0.5, 2, (int64_t(1) << 40) + 5, offset};
        cases.run(op, shape_text(op.y) + " from " + std::to_string(offset), 1);
      }
}

const Family family("fill_normal", fill_normal);

}  // namespace
}  // namespace ds::test
