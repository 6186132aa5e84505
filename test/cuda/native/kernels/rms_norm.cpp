#include "kernels/norm/rms_norm.h"

#include "cases.h"

namespace ds::test {
namespace {

void forward(Cases& cases, const std::string& what, RmsNorm op, double C) {
  cases.run(op, what, C, 4);
  op.y = op.x;
  if (op.residual) static_cast<Tensor&>(op.sum) = op.residual;
  cases.run(op, what + " in place", C, 4);
}

void rms_norm(Cases& cases) {
  struct Shape {
    int64_t R, C, shift;
  };
  // A warp a row, a block a row, rows read again; odd, unaligned, empty; more rows than the emulated grid has.
  Shape shapes[] = {{1, 1, 0},    {3, 7, 0},     {5, 64, 1},    {2, 129, 0},   {0, 16, 0},    {33, 1000, 0},
                    {300, 32, 0}, {70, 1032, 0}, {2, 16384, 0}, {2, 16392, 0}, {17, 1024, 0}, {9000, 8, 0}};
  for (auto [R, C, shift] : shapes)
    for (DType rows : kFloats)
      for (DType weights : {rows, DType::f32})
        for (bool residual : {false, true}) {
          std::string what = "[" + std::to_string(R) + ", " + std::to_string(C) + "] " + dtype_name(rows) + " " +
                             dtype_name(weights) + (residual ? " + residual" : "");
          cases.begin(shift);
          RmsNorm op{};
          op.x = cases.tensor(rows, {R, C}, 0.5, 2);
          op.y = cases.tensor(rows, {R, C});
          op.rstd = cases.tensor(DType::f32, {R});
          if (residual) {
            static_cast<Tensor&>(op.residual) = cases.tensor(rows, {R, C});
            static_cast<Tensor&>(op.sum) = cases.tensor(rows, {R, C});
          }
          op.weight = cases.tensor(weights, {C}, 1, 0.3);
          op.eps = 1e-6;
          forward(cases, what, op, double(C));
          for (bool accumulate : {false, true}) {
            cases.begin(shift);
            RmsNormBackward back{};
            DType grads = weights == rows ? rows : accumulate ? DType::bf16 : DType::f32;
            back.dx = cases.tensor(rows, {R, C});
            back.dweight = cases.tensor(grads, {C});
            back.dy = cases.tensor(rows, {R, C});
            back.s = cases.tensor(rows, {R, C}, 0.5, 2);
            back.rstd = cases.tensor(DType::f32, {R}, 0.5, 0.01);
            back.weight = cases.tensor(weights, {C}, 1, 0.3);
            back.accumulate = accumulate;
            if (residual) static_cast<Tensor&>(back.dsum) = cases.tensor(rows, {R, C});
            double scale = 4 * std::sqrt(double(R + 1));
            cases.run(back, what + (accumulate ? " accumulate" : ""), double(std::max(R, C)), scale);
            back.dx = residual && accumulate ? Tensor(back.dsum) : back.dy;
            cases.run(back, what + " in place", double(std::max(R, C)), scale);
          }
        }
}

const Family family("rms_norm", rms_norm);

}  // namespace
}  // namespace ds::test
