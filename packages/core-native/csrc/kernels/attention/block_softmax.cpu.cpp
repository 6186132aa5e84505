#include "block_softmax.h"

#include "../../runtime/pool.h"
#include "blocks.h"

namespace ds::DS_ISA {
namespace {

// Calls body(row of blocks, room for a row of scores) for every row of blocks, on the pool.
template <class Body>
void for_block_rows(const Tensor& s, const BlockLayout& layout, Body&& body) {
  auto blocks = head_blocks(layout);
  int64_t N = layout.side();
  parallel_for(s.dim(0) * layout.head_layout.numel() * N, [&](int64_t c) {
    BlockRow row(layout, blocks, c / N, c % N);
    body(row, scratch(row.count * layout.block));
  });
}

// Calls body(vector of the row, its place in s, its first key) along row i of a row of blocks.
template <class Body>
void along(const BlockRow& row, int64_t i, Body&& body) {
  int64_t n = row.layout.block, x = 0;
  for (int64_t k = 0; k < row.count; ++k)
    for (int64_t j = 0; j < n; j += kLanes, x += kLanes) body(x, row.at(k, i) + j, row.key(k) + j);
}

template <class T>
void softmax(const BlockSoftmax& op) {
  int64_t tokens = op.tokens();
  const uint8_t* mask = op.mask ? op.mask.as<uint8_t>() : nullptr;
  const float* added = op.added ? op.added.as<float>() : nullptr;
  int64_t added_head = op.added.numel() == tokens * tokens ? 0 : tokens * tokens;
  for_block_rows(op.s, op.layout, [&](const BlockRow& row, float* scores) {
    for (int64_t i = 0; i < op.layout.block; ++i) {
      int64_t query = row.query(i);
      Vec largest = splat(-INFINITY), total{};
      along(row, i, [&](int64_t x, int64_t at, int64_t key) {
        Vec value = load(op.s.as<T>() + at) * float(op.scale);
        if (added) value += load(added + row.h * added_head + query * tokens + key);
        if (op.causal) value = select(lane_numbers() + int32_t(key) <= int32_t(query), value, splat(-INFINITY));
        if (mask)
          for (int lane = 0; lane < kLanes; ++lane)
            if (!mask[row.b * tokens + key + lane]) value[lane] = -INFINITY;
        store(scores + x, value);
        largest = max(value, largest);
      });
      // No visible key: every exponential becomes exp(-inf) = 0.
      float top = max_lane(largest), base = top == -INFINITY ? 0.0f : top;
      along(row, i, [&](int64_t x, int64_t, int64_t) {
        Vec e = exp(load(scores + x) - base);
        store(scores + x, e);
        total += e;
      });
      float sum_of_all = sum(total), factor = sum_of_all > 0 ? 1 / sum_of_all : 0.0f;
      along(row, i, [&](int64_t x, int64_t at, int64_t) { store(op.p.as<T>() + at, load(scores + x) * factor); });
    }
  });
}

template <class T>
void softmax_backward(const BlockSoftmaxBackward& op) {
  for_block_rows(op.p, op.layout, [&](const BlockRow& row, float*) {
    for (int64_t i = 0; i < op.layout.block; ++i) {
      Vec total{};
      along(row, i,
            [&](int64_t, int64_t at, int64_t) { total = load(op.p.as<T>() + at) * load(op.dp.as<T>() + at) + total; });
      float all = sum(total), scale = float(op.scale);
      along(row, i, [&](int64_t, int64_t at, int64_t) {
        store(op.ds.as<T>() + at, load(op.p.as<T>() + at) * scale * (load(op.dp.as<T>() + at) - all));
      });
    }
  });
}

}  // namespace

void block_softmax(const BlockSoftmax& op) {
  require_blocks(op.name, op.s, op.layout);
  dispatch_float(op.s.dtype, [&]<class T>() { softmax<T>(op); });
}
void block_softmax_backward(const BlockSoftmaxBackward& op) {
  require_blocks(op.name, op.p, op.layout);
  dispatch_float(op.p.dtype, [&]<class T>() { softmax_backward<T>(op); });
}

}  // namespace ds::DS_ISA
