#include "kernels/attention/block_matmul.h"

#include "block_layouts.h"

namespace ds::test {
namespace {

constexpr int64_t kBatch = 2, kHeads = 2;

struct Shape {
  DType dtype;
  int64_t K, shift;
};

// All three products, with every way to store their operands.
void products(Cases& cases, const Drawn& drawn, const Shape& shape) {
  int64_t T = drawn.block * drawn.N, n = drawn.block, Z = 0;
  auto [dtype, K, shift] = shape;
  for (int64_t h = 0; h < kHeads; ++h)
    for (int64_t i = 0; i < drawn.N * drawn.N; ++i) Z += drawn.is_there(h % 2, i / drawn.N, i % drawn.N);
  for (int ways = 0; ways < 4; ++ways) {
    bool first = ways & 1, second = ways & 2;
    std::string what = std::string(drawn.name) + " " + std::to_string(n) + " x " + std::to_string(drawn.N) + " K " +
                       std::to_string(K) + " + " + std::to_string(shift) + dtype_name(dtype) +
                       (first ? " first turned" : "") + (second ? " second turned" : "");
    auto begin = [&] {
      cases.begin(shift);
      return block_layout(cases, n, drawn.N, kHeads, drawn.is_there);
    };
    auto tokens = [&](bool turned) {
      return cases.tensor(dtype,
                          turned ? std::vector<int64_t>{kBatch, kHeads, K, T} : std::vector{kBatch, kHeads, T, K});
    };
    auto sparse = [&] { return cases.tensor(dtype, {kBatch, Z, n, n}); };
    {
      BlockLayout layout = begin();
      cases.run(BlockSdd{sparse(), tokens(first), tokens(!second), layout, first, second}, what, double(K + 1), 4);
    }
    {
      BlockLayout layout = begin();
      cases.run(BlockDsd{tokens(false), sparse(), tokens(second), layout, first, second}, what, double(T), 8);
    }
    {
      BlockLayout layout = begin();
      cases.run(BlockDds{tokens(true), tokens(!first), sparse(), layout, first, second}, what, double(T), 8);
    }
  }
}

void block_matmul(Cases& cases) {
  for (const Drawn& drawn : drawn_layouts()) {
    products(cases, drawn, {DType::f32, 20, 0});
    products(cases, drawn, {DType::bf16, 24, 0});
    if (drawn.block > 32) continue;  // the specification takes its time
    products(cases, drawn, {DType::f16, 72, 0});
    products(cases, drawn, {DType::f32, 68, 0});
    products(cases, drawn, {DType::bf16, 17, 0});
    products(cases, drawn, {DType::f32, 33, 1});
    products(cases, drawn, {DType::f16, 16, 1});
    products(cases, drawn, {DType::f32, 0, 0});
  }
}

const Family family("block_matmul", block_matmul);

}  // namespace
}  // namespace ds::test
