#include "kernels/attention/block_softmax.h"

#include "block_layouts.h"

namespace ds::test {
namespace {

constexpr int64_t kBatch = 2, kHeads = 2;

struct Settings {
  DType dtype;
  int64_t shift;
  bool causal;
  int added;  // 0 none, 1 for all heads, 2 for each
  bool masked;
};

void softmax(Cases& cases, const Drawn& drawn, const Settings& settings) {
  auto [dtype, shift, causal, added, masked] = settings;
  int64_t T = drawn.block * drawn.N, n = drawn.block, Z = 0;
  for (int64_t h = 0; h < kHeads; ++h)
    for (int64_t i = 0; i < drawn.N * drawn.N; ++i) Z += drawn.is_there(h % 2, i / drawn.N, i % drawn.N);
  std::string what = std::string(drawn.name) + " " + std::to_string(n) + " x " + std::to_string(drawn.N) + " + " +
                     std::to_string(shift) + dtype_name(dtype) + (causal ? " causal" : "") + " added " +
                     std::to_string(added) + (masked ? " masked" : "");
  cases.begin(shift);
  BlockSoftmax op{};
  op.layout = block_layout(cases, n, drawn.N, kHeads, drawn.is_there);
  op.p = cases.tensor(dtype, {kBatch, Z, n, n});
  op.s = cases.tensor(dtype, {kBatch, Z, n, n}, 0, 3);
  if (added) static_cast<Tensor&>(op.added) = cases.tensor(DType::f32, {added == 1 ? 1 : kHeads, T, T});
  if (masked) {
    static_cast<Tensor&>(op.mask) = cases.tensor(DType::u8, {kBatch, T});
    // All of the second sequence, and every third key.
    for (int64_t i = 0; i < kBatch * T; ++i) put(op.mask, i, i / T != 1 && i % 3 != 1);
  }
  op.scale = 0.7, op.causal = causal;
  cases.run(op, what, double(T), 1);
  op.p = op.s;
  cases.run(op, what + " in place", double(T), 1);

  cases.begin(shift);
  BlockSoftmaxBackward back{};
  back.layout = block_layout(cases, n, drawn.N, kHeads, drawn.is_there);
  back.ds = cases.tensor(dtype, {kBatch, Z, n, n});
  back.dp = cases.tensor(dtype, {kBatch, Z, n, n});
  back.p = cases.tensor(dtype, {kBatch, Z, n, n}, 0.1, 0.05);
  back.scale = 0.7;
  cases.run(back, what, double(T), 4);
  back.ds = back.dp;
  cases.run(back, what + " in place", double(T), 4);
}

void block_softmax(Cases& cases) {
  auto layouts = drawn_layouts();
  // Rows longer than the registers hold: of 16-bit, and of unaligned elements.
  layouts.push_back({16, 20, "long", [](int64_t, int64_t r, int64_t c) { return r < 1 || c == r; }});
  layouts.push_back({16, 130, "longest", [](int64_t p, int64_t r, int64_t) { return r == p; }});
  for (const Drawn& drawn : layouts) {
    bool large = drawn.block * drawn.N > 1000;
    softmax(cases, drawn, {DType::f32, 0, true, large ? 0 : 2, true});
    softmax(cases, drawn, {DType::bf16, 0, false, large ? 0 : 1, false});
    if (large) continue;
    softmax(cases, drawn, {DType::f16, 0, true, 0, true});
    softmax(cases, drawn, {DType::f32, 1, false, 2, true});
    softmax(cases, drawn, {DType::bf16, 3, true, 0, false});
  }
}

const Family family("block_softmax", block_softmax);

}  // namespace
}  // namespace ds::test
