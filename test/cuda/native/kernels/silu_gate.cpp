#include "kernels/elementwise/silu_gate.h"

#include "cases.h"

namespace ds::test {
namespace {

void silu_gate(Cases& cases) {
  for (int64_t n : kSizes)
    for (int64_t shift : {0, 1, 3})
      for (DType dtype : kFloats) {
        std::string what = "[" + std::to_string(n) + "] + " + std::to_string(shift) + dtype_name(dtype);
        cases.begin(shift);
        SiluGate op{cases.tensor(dtype, {n}), cases.tensor(dtype, {n}, 0, 4), cases.tensor(dtype, {n})};
        cases.run(op, what, 16, 4);
        op.y = op.gate;
        cases.run(op, what + " in place", 16, 4);
        cases.begin(shift);
        SiluGateBackward back{cases.tensor(dtype, {n}), cases.tensor(dtype, {n}), cases.tensor(dtype, {n}),
                              cases.tensor(dtype, {n}, 0, 4), cases.tensor(dtype, {n})};
        cases.run(back, what, 16, 8);
        back.dgate = back.up;
        back.dup = back.gate;
        cases.run(back, what + " in place", 16, 8);
      }
}

const Family family("silu_gate", silu_gate);

}  // namespace
}  // namespace ds::test
