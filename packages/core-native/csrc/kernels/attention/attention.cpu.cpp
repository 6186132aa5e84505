#include "attention.h"

#include <optional>

#include "../../runtime/pool.h"
#include "flash_forward.h"
#include "key_norms.h"

namespace ds::DS_ISA {
namespace {

template <class T>
class Forward {
 public:
  explicit Forward(const Attention& op)
      : op_(op),
        s_(op.shape()),
        places_(op.mask ? op.mask.as<uint8_t>() : nullptr, s_.T, s_.B, s_.T),
        norms_(op.slopes, s_.B, s_.H, s_.T, s_.T) {}

  void run() {
    norms_.fill([&](int64_t bh, int64_t first, int64_t n) {
      return largest_square(head_rows<const T>(op_.qkv, s_, bh / s_.H, bh % s_.H, 1), first, n, s_.D);
    });
    constexpr int64_t kQueries = kStrip * kStripsPerChunk;
    int64_t pieces = (s_.T + kQueries - 1) / kQueries, heads = s_.B * s_.H;
    // The last queries see the most keys: the longest chunks first.
    parallel_for(pieces * heads, [&](int64_t chunk) {
      int64_t first = (pieces - 1 - chunk / heads) * kQueries;
      queries(chunk % heads, first, std::min(s_.T, first + kQueries));
    });
  }

 private:
  void queries(int64_t bh, int64_t first, int64_t end) const {
    int64_t b = bh / s_.H, h = bh % s_.H, D = s_.D;
    float slope = op_.slopes ? op_.slopes.as<float>()[h] * kLog2E : 0.0f;
    Sight sight{op_.causal, slope, places_.position(b), places_.mask(b)};
    auto w = in_scratch<ForwardBlocks>(D);
    auto query = head_rows<const T>(op_.qkv, s_, b, h, 0);
    for (int64_t at = first; at < end; at += kStrip)
      w.strips[w.count++].start(query, at, std::min(kStrip, end - at), 0, D, float(op_.scale) * kLog2E, sight, w.rows);
    std::optional<KeepBits> keep;
    if (op_.dropout > 0) keep.emplace(op_.dropout, op_.seed, op_.offset, bh * s_.T, s_.T);
    auto key = head_rows<const T>(op_.qkv, s_, b, h, 1), value = head_rows<const T>(op_.qkv, s_, b, h, 2);
    attend_all(w, sight, op_.causal ? end : s_.T, D, norms_, bh, keep ? &*keep : nullptr,
               [&](int64_t at, int64_t n, float* k, float* v) {
                 pack_rows(key, at, n, D, k, round_up(D, kLanes));
                 pack_rows(value, at, n, D, v, D);
               });
    auto out = out_rows<T>(op_.out, s_, b, h);
    for (int64_t i = 0; i < w.count; ++i) {
      const Strip& strip = w.strips[i];
      finish(strip, D, float(1 / (1 - op_.dropout)), out, strip.first, op_.lse.as<float>() + bh * s_.T + strip.first,
             w.rows);
    }
  }

  const Attention& op_;
  AttentionShape s_;
  Places places_;
  KeyNorms norms_;
};

}  // namespace

void attention(const Attention& op) {
  dispatch_float(op.qkv.dtype, [&]<class T>() { Forward<T>(op).run(); });
}

}  // namespace ds::DS_ISA
