#include "kernels/gemm/linear.h"

#include "cases.h"
#include "linear_cases.h"

namespace ds::test {
namespace {

void linear(Cases& cases) {
  // [R, K] x [N, K]^T. Rows few (1, 4, 8) and more; tiles with all their edges, and in more than one group; panels that
  // end inside the depth; the depth in parts; factors that start anywhere or have odd rows; empty.
  const LinearShape shapes[] = {{1, 1, 1, 0},      {1, 64, 40, 0},   {3, 72, 9, 0},     {4, 2048, 6, 0},
                                {8, 40, 67, 0},    {7, 33, 5, 0},    {8, 64, 24, 1},    {0, 16, 8, 0},
                                {9, 16, 0, 0},     {9, 8, 8, 0},     {17, 33, 31, 0},   {33, 40, 72, 0},
                                {64, 64, 64, 0},   {65, 96, 80, 3},  {70, 136, 130, 0}, {37, 391, 67, 0},
                                {16, 1032, 24, 0}, {24, 1100, 9, 0}, {580, 8, 72, 0},   {523, 9, 15, 0}};
  for (const LinearShape& shape : shapes)
    for (DType rows : kFloats) linear_case(cases, shape, rows, rows);
  // f32 weights beside 16-bit rows.
  const LinearShape mixed[] = {{1, 64, 40, 0}, {3, 33, 5, 1}, {8, 64, 24, 0}, {17, 33, 31, 0}, {70, 72, 66, 0}};
  for (const LinearShape& shape : mixed)
    for (DType rows : {DType::bf16, DType::f16}) linear_case(cases, shape, rows, DType::f32);
  // Tiles of 128, which a long sum asks for: each op's own.
  for (DType rows : {DType::f32, DType::bf16}) {
    forward_case(cases, {136, 2056, 128, 0}, rows, rows, kAll);
    input_case(cases, {136, 128, 2056, 0}, rows, rows, true);
    weight_case(cases, {2056, 136, 128, 0}, rows, rows, true, true);
  }
  forward_case(cases, {136, 2056, 128, 0}, DType::bf16, DType::f32, kAll);
  input_case(cases, {136, 128, 2056, 0}, DType::f16, DType::f32, true);
  weight_case(cases, {2056, 136, 128, 0}, DType::f16, DType::f32, true, true);
}

const Family family("linear", linear);

}  // namespace
}  // namespace ds::test
