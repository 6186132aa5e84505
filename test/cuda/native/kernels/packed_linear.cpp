#include "kernels/gemm/packed_linear.h"

#include "cases.h"

namespace ds::test {
namespace {

constexpr PackedFormat kFormats[] = {PackedFormat::f32, PackedFormat::bf16, PackedFormat::f16, PackedFormat::q8,
                                     PackedFormat::q4};
constexpr const char* kNames[] = {"f32", "bf16", "f16", "q8", "q4"};

// A weight of normal numbers, packed by the device and, with the same bytes, by the specification.
PackedWeight packed(Cases& cases, PackedFormat format, int64_t N, int64_t K, bool gated) {
  PackWeight op{};
  op.weight.format_code = int64_t(format);
  op.weight.rows = N;
  op.weight.columns = K;
  op.weight.gated = gated;
  op.weight.bytes = cases.tensor(DType::u8, {op.weight.groups(), op.weight.group_bytes()});
  if (op.weight.bytes.data) std::memset(op.weight.bytes.data, 0, size_t(op.weight.bytes.numel()));
  op.source = cases.tensor(DType::f32, {N, K});
  cases.run(op, std::string(kNames[int(format)]) + " [" + std::to_string(N) + ", " + std::to_string(K) + "]", 1, 1,
            true);
  return op.weight;
}

// Rows that rounding to 8 bits keeps, so that it may not hide an error.
void make_exact(const Tensor& x, int64_t K) {
  for (int64_t i = 0; i < x.numel(); ++i) put(x, i, i % K % 32 == 0 ? 127 : double(i * 7919 % 255) - 127);
}

void packed_linear(Cases& cases) {
  struct Shape {
    int64_t R, K, N;
    bool gated, norm;
  };
  // Each number of tiles, teams and rows a block; odd numbers of groups; one block of columns and several batches of
  // them; a depth in parts.
  Shape shapes[] = {{1, 1, 1, false, false},     {0, 33, 5, false, false},    {1, 70, 37, false, true},
                    {3, 100, 50, true, false},   {8, 1100, 20, false, false}, {9, 64, 40, true, true},
                    {17, 333, 35, false, false}, {33, 64, 40, false, true},   {70, 40, 150, false, false},
                    {65, 600, 18, true, false}};
  for (auto [R, K, N, gated, norm] : shapes)
    for (PackedFormat format : kFormats)
      for (DType rows : kFloats) {
        cases.begin(0);
        PackedLinear op{};
        op.weight = packed(cases, format, N, K, gated);
        op.x = cases.tensor(rows, {R, K});
        bool integers = is_quantised(format);
        // Behind a norm integers are not kept; the bound is that of the rounding then.
        if (integers && !norm) make_exact(op.x, K);
        op.y = cases.tensor(R % 2 ? DType::f32 : rows, {R, op.weight.outputs()});
        static_cast<Tensor&>(op.bias) = cases.tensor(DType::f32, {N});
        if (!norm) static_cast<Tensor&>(op.residual) = cases.tensor(op.y.dtype, {R, op.weight.outputs()});
        op.norm.kind_code = norm ? 1 + R % 2 : 0;
        if (norm) static_cast<Tensor&>(op.norm.weight) = cases.tensor(DType::f32, {K}, 1, 0.3);
        if (op.norm.kind() == NormKind::layer) static_cast<Tensor&>(op.norm.bias) = cases.tensor(DType::f32, {K});
        op.norm.eps = 1e-5;
        op.activation_code = gated ? 4 : K % 4;
        double size = std::sqrt(double(K)) * (integers && !norm ? 80 : 2);
        // Rounding n to 8 bits, or to the 16 bits of x, may go the other way than in the specification's doubles.
        if (norm && integers) size *= 0x1p23 / (127 * 64);
        if (norm && rows != DType::f32) size *= rows == DType::bf16 ? 0x1p23 / 512 / 16 : 0x1p23 / 4096 / 16;
        if (gated) size *= integers && !norm ? 80 * std::sqrt(double(K)) : 8;
        std::string what = std::string(kNames[int(format)]) + " [" + std::to_string(R) + ", " + std::to_string(K) +
                           "] x [" + std::to_string(N) + ", " + std::to_string(K) + "] " + dtype_name(rows) +
                           (gated ? " gated" : "") + (norm ? " norm" : "");
        cases.run(op, what, double(K), size);
        if (gated || norm || N == 0) continue;
        PackedArgmax lead{};
        lead.weight = op.weight;
        lead.x = op.x;
        lead.out = cases.tensor(DType::i32, {R});
        cases.run(lead, what, 1, 1, true);
      }
}

void packed_rows(Cases& cases) {
  for (PackedFormat format : kFormats) {
    cases.begin(0);
    PackedRows op{};
    op.weight = packed(cases, format, 35, 70, false);
    op.ids = cases.tensor(DType::i32, {40});
    for (int64_t r = 0; r < 40; ++r) op.ids.as<int32_t>()[r] = int32_t(r * 11 % 35);
    op.y = cases.tensor(DType::f32, {40, 70});
    cases.run(op, kNames[int(format)], 1, 1, true);
    op.ids.as<int32_t>()[7] = 35;
    cases.refuse(op, "35 at position 7");
  }
}

const Family family("packed_linear", packed_linear);
const Family rows_family("packed_rows", packed_rows);

}  // namespace
}  // namespace ds::test
