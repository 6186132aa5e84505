#include "dropout.h"

#include "../../runtime/pool.h"
#include "../common/philox.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGrain = 16384;  // a multiple of every kLanes: pieces and vectors start at a whole counter

template <class T, bool draw>
void piece(const Dropout& op, const Philox& random, int64_t begin, int64_t n) {
  T* y = op.y.as<T>() + begin;
  const T* x = op.x.as<T>() + begin;
  const T* residual = op.residual ? op.residual.as<T>() + begin : nullptr;
  uint64_t counter = uint64_t(op.offset + begin / 4);
  UVec threshold = op.threshold() - UVec{};
  float scale = float(1 / (1 - op.p));
  for_lanes(n, [&](auto load_at, auto store_at) {
    Vec kept = scale * load_at(x);
    if constexpr (draw) {
      kept = select(IVec((random.words(counter) >> 8) >= threshold), kept, Vec{});
      counter += kPhiloxCounters;
    }
    store_at(y, residual ? kept + load_at(residual) : kept);
  });
}

}  // namespace

void dropout(const Dropout& op) {
  Philox random(uint64_t(op.seed));
  dispatch_float(op.x.dtype, [&]<class T>() {
    parallel_ranges(op.x.numel(), kGrain, [&](int64_t begin, int64_t end) {
      op.threshold() ? piece<T, true>(op, random, begin, end - begin) : piece<T, false>(op, random, begin, end - begin);
    });
  });
}

}  // namespace ds::DS_ISA
