#include "paged_attention.h"

#include "paged_passes.cuh"

namespace ds::cuda {
namespace {

template <class T, class K>
bool aligned_pages(const PagedKeyValues& kv) {
  constexpr int64_t kOf = kPack<K>;
  return kv.size() % kOf == 0 && kv.page() % kOf == 0 && aligned_16(kv.keys.data, kv.values.data);
}

template <class T, class K, int kD>
void launch_passes(const PagedPass<T, K>& op, bool few, bool many, CudaContext& context) {
  if (few) {
    using Cut = FewCut<T, K, kD>;
    int64_t units = most_few_units(op.shape);
    DS_LAUNCH((attend_few<T, K, Cut>), strided_blocks(units, 1, context, Cut::kBlocks), Cut::kThreads,
              Cut::kSharedBytes, context, op);
    DS_LAUNCH((join_parts<T, K>), strided_blocks(units, 1, context, 8), kJoinThreads, 0, context, op);
  }
  if (many) {
    using Cut = ManyCut<T, K, kD>;
    DS_LAUNCH((attend_many<T, K, Cut>), unsigned(most_many_units(op.shape)), Cut::kThreads, Cut::kSharedBytes, context,
              op);
  }
}

}  // namespace

void paged_attention(const PagedAttention& op, CudaContext& context) {
  int64_t R = op.q.dim(0), S = op.rows.sequences(), D = op.kv.size();
  // One sequence has all rows; of several, `longest` bounds each.
  bool many = R > 0 && op.rows.longest > kFewTokens, few = R > 0 && !(S == 1 && R > kFewTokens);
  PlanShape shape{rows_of(op.rows, R), int(op.kv.heads()), int(op.heads / op.kv.heads()), 0, op.back()};
  int64_t numbers = (Plan::size(S) + 63) / 64 * 64, part = kTileRows * (D + 2);
  auto* scratch = context.scratch<int32_t>(numbers + (few ? most_few_units(shape) * part : 0));
  Plan plan(scratch, S);
  check_rows<PagedAttention>(shape.rows, op.kv, op.back(), -1, plan.good, context);
  if (R == 0) return;
  dispatch_paged(op.q.dtype, op.kv.keys.dtype, [&]<class T, class K>() {
    PagedPass<T, K> pass{op.out.as<T>(),
                         op.q.as<const T>(),
                         pages_of<K>(op.kv),
                         shape,
                         plan,
                         op.slopes ? op.slopes.as<const float>() : nullptr,
                         reinterpret_cast<float*>(scratch + numbers),
                         int(op.heads),
                         float(op.scale) * kLog2E,
                         D % kPack<T> == 0 && aligned_16(op.q.data, op.out.data),
                         aligned_pages<T, K>(op.kv)};
    for_width(D, context, [&]<int kD> {
      pass.shape.many_rows = ManyCut<T, K, kD>::kRows;
      DS_LAUNCH(make_plan<kPlanThreads>, 1, kPlanThreads, 0, context, pass.shape, pass.plan);
      launch_passes<T, K, kD>(pass, few, many, context);
    });
  });
}

DS_CUDA_KERNEL(PagedAttention, paged_attention)

}  // namespace ds::cuda
