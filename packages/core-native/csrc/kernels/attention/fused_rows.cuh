// Launchers' view of an attention op: its tensors as rows, and its sight, for the dense and the block-sparse op alike.
#pragma once
#include "attention_passes.cuh"
#include "flash_backward.cuh"
#include "flash_forward.cuh"
#include "sparse_attention.h"

namespace ds::cuda {

// Query, key or value (0, 1, 2) of a fused [B, T, H, 3, D] tensor.
template <class T>
RowsOf<T> fused_rows(const Tensor& qkv, const AttentionShape& s, int which) {
  return {qkv.as<T>() + which * s.D, s.T * s.H * 3 * s.D, 3 * s.D, s.H * 3 * s.D};
}
// Of a [B, T, H, D] tensor.
template <class T>
RowsOf<T> plain_rows(const Tensor& out, const AttentionShape& s) {
  return {out.as<T>(), s.T * s.H * s.D, s.D, s.H * s.D};
}

template <class T>
bool aligned_rows(int64_t D, std::initializer_list<const void*> tensors) {
  bool aligned = D % kPack<T> == 0;
  for (const void* p : tensors) aligned = aligned && aligned_16(p);
  return aligned;
}

// Scratch memory in f32 for positions, norms and `more` numbers of the pass itself.
struct PassMemory {
  float *positions = nullptr, *norms = nullptr, *more = nullptr;
  PassMemory(CudaContext& context, int64_t position_count, int64_t norm_count, int64_t more_count) {
    float* all = context.scratch<float>(position_count + norm_count + more_count);
    if (position_count) positions = all;
    if (norm_count) norms = all + position_count;
    if (more_count) more = all + position_count + norm_count;
  }
};

// Queues what the pass needs to know beforehand, and gives the sight. `more`: f32 numbers the pass wants for itself.
template <class T, class Op>
Sight prepare_sight(const Op& op, CudaContext& context, int64_t more_count, float** more) {
  auto s = op.shape();
  constexpr bool kListed = requires { op.layout; };
  const float* slopes = op.slopes ? op.slopes.template as<const float>() : nullptr;
  const uint8_t* mask = op.mask ? op.mask.template as<const uint8_t>() : nullptr;
  // A head that a layout cuts may hide the near keys that reach() counts on. Short sequences reach nowhere.
  int parts = !kListed && slopes && s.T > kNormRows ? norm_parts(s.T) : 0;
  PassMemory memory(context, slopes && mask ? s.B * s.T : 0, s.B * s.H * parts * 2, more_count);
  if (more) *more = memory.more;
  Sight sight{};
  sight.slopes = slopes, sight.mask = mask, sight.mask_stride = s.T;
  sight.positions = memory.positions, sight.norms = memory.norms, sight.norm_parts = parts;
  sight.keys = int(s.T), sight.scale = float(op.scale) * kLog2E, sight.causal = op.causal;
  sight.drops = op.dropout > 0, sight.threshold = dropout_threshold(op.dropout);
  sight.seed = uint64_t(op.seed), sight.offset = uint64_t(op.offset);
  if constexpr (kListed) {
    if (op.added) sight.added = op.added.template as<const float>();
    if (op.added && op.added.numel() != s.T * s.T) sight.added_head = s.T * s.T;
  }
  if (s.B * s.T == 0) return sight;
  if (memory.positions)
    DS_LAUNCH(find_positions<256>, unsigned(s.B), 256, 0, context, mask, s.T, memory.positions, int(s.T));
  if (parts)
    DS_LAUNCH(find_norms<T>, unsigned(s.B * s.H * parts), 256, 0, context, fused_rows<const T>(op.qkv, s, 0),
              fused_rows<const T>(op.qkv, s, 1), slopes, memory.norms, s.H, int(s.T), int(s.D), parts);
  return sight;
}

inline BlockLists by_rows(const BlockLayout& l) {
  return {l.head_layout.as<const int32_t>(),
          l.row_start.as<const int32_t>(),
          l.columns.as<const int32_t>(),
          int(l.layouts()),
          int(l.side()),
          int(l.block),
          int(l.columns.numel())};
}
inline BlockLists by_columns(const BlockLayout& l) {
  return {l.head_layout.as<const int32_t>(),
          l.column_start.as<const int32_t>(),
          l.rows.as<const int32_t>(),
          int(l.layouts()),
          int(l.side()),
          int(l.block),
          int(l.rows.numel())};
}

// The passes of a dense or block-sparse op.
template <class T, class Op>
FlashForward<T> forward_pass(const Op& op, CudaContext& context) {
  auto s = op.shape();
  FlashForward<T> pass{};
  pass.sight = prepare_sight<T>(op, context, 0, nullptr);
  pass.out = plain_rows<T>(op.out, s);
  pass.lse = op.lse.template as<float>();
  pass.query = fused_rows<const T>(op.qkv, s, 0);
  pass.key = fused_rows<const T>(op.qkv, s, 1);
  pass.value = fused_rows<const T>(op.qkv, s, 2);
  pass.heads = s.H, pass.batches = s.B, pass.D = int(s.D), pass.queries = int(s.T);
  pass.aligned = aligned_rows<T>(s.D, {op.qkv.data, op.out.data});
  pass.keep = float(1 / (1 - op.dropout));
  return pass;
}

template <class T, class Op>
FlashBackward<T> backward_pass(const Op& op, CudaContext& context) {
  auto s = op.shape();
  float* delta = nullptr;
  FlashBackward<T> pass{};
  pass.sight = prepare_sight<T>(op, context, s.B * s.H * s.T, &delta);
  pass.dquery = fused_rows<T>(op.dqkv, s, 0);
  pass.dkey = fused_rows<T>(op.dqkv, s, 1);
  pass.dvalue = fused_rows<T>(op.dqkv, s, 2);
  pass.query = fused_rows<const T>(op.qkv, s, 0);
  pass.key = fused_rows<const T>(op.qkv, s, 1);
  pass.value = fused_rows<const T>(op.qkv, s, 2);
  pass.dout = plain_rows<const T>(op.dout, s);
  pass.lse = op.lse.template as<const float>(), pass.delta = delta;
  pass.heads = s.H, pass.batches = s.B, pass.D = int(s.D);
  pass.aligned = aligned_rows<T>(s.D, {op.qkv.data, op.dqkv.data, op.dout.data});
  pass.keep = float(1 / (1 - op.dropout)), pass.scale = float(op.scale);
  int64_t rows = s.B * s.T * s.H, warps = 8;
  if (rows)
    DS_LAUNCH(find_delta<T>, unsigned((rows + warps - 1) / warps), 256, 0, context, pass.dout,
              plain_rows<const T>(op.out, s), delta, s.H, s.T, rows, int(s.D));
  return pass;
}

}  // namespace ds::cuda
