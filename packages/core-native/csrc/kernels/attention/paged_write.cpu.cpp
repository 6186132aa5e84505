// Rows go in blocks of neighbours, one head after the other: the tokens of a page are side by side in the keys, so that
// their stores meet the same lines.
#include "paged_write.h"

#include <cmath>

#include "../../runtime/pool.h"
#include "paged_cpu.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kRowsAtOnce = 16;

template <class T>
float square_sum(const T* x, int64_t n) {
  Vec squares{};
  for_lanes(n, [&](auto load_at, auto) {
    Vec v = load_at(x);  // zero in the tail's padding
    squares += v * v;
  });
  return sum(squares);
}

// The largest magnitude; infinity for anything that is not finite.
inline float largest_magnitude(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    float magnitude = std::fabs(x[i]);
    largest = magnitude <= largest ? largest : magnitude < INFINITY ? magnitude : INFINITY;
  }
  return largest;
}

// A row's head as K: numbers, or bytes and their scale.
template <class K>
float narrow_head(const float* x, int64_t D, K* to) {
  if constexpr (!std::is_same_v<K, int8_t>) {
    for_lanes(D, [&](auto load_at, auto store_at) { store_at(to, load_at(x)); });
    return 1;
  } else {
    float largest = largest_magnitude(x, D);
    bool usable = largest >= kLeastHeadMagnitude && largest < INFINITY;
    float factor = usable ? 127 / largest : 0;
    for (int64_t d = 0; d < D; ++d) to[d] = usable ? int8_t(std::nearbyint(x[d] * factor)) : int8_t(0);
    return largest < kLeastHeadMagnitude ? 0 : largest / 127;
  }
}

template <class T, class K>
class Write {
 public:
  explicit Write(const PagedWrite& op) : op_(op), H_(op.heads), G_(op.kv.heads()), D_(op.kv.size()) {}

  void run() const {
    op_.validate();
    parallel_ranges(op_.qkv.dim(0), kRowsAtOnce, [&](int64_t begin, int64_t end) {
      Place places[kRowsAtOnce];
      int64_t s = op_.rows.sequence_of(begin);
      for (int64_t r = begin; r < end; ++r) {
        while (r >= op_.rows.start(s + 1)) ++s;
        places[r - begin] = place(s, r);
      }
      for (int64_t h = 0; h < H_ + 2 * G_; ++h)
        for (int64_t r = begin; r < end; ++r) head(r, h, places[r - begin]);
    });
  }

 private:
  struct Place {
    int64_t position, page, slot;
    float query_rstd, key_rstd;  // where the norm is over all heads
  };

  const T* row(int64_t r) const { return op_.qkv.as<T>() + r * (H_ + 2 * G_) * D_; }
  float rstd(float squares, int64_t n) const { return 1.0f / std::sqrt(squares / float(n) + float(op_.eps)); }
  bool whole(const Tensor& weight, int64_t heads) const { return weight.present && weight.numel() == heads * D_; }

  Place place(int64_t s, int64_t r) const {
    int64_t position = op_.rows.past_of(s) + r - op_.rows.start(s), page = op_.kv.page();
    Place p{position, op_.rows.table_of(s)[position / page], position % page, 0, 0};
    if (whole(op_.query_norm, H_)) p.query_rstd = rstd(square_sum(row(r), H_ * D_), H_ * D_);
    if (whole(op_.key_norm, G_)) p.key_rstd = rstd(square_sum(row(r) + H_ * D_, G_ * D_), G_ * D_);
    return p;
  }

  // Head h of a row, queries first, then keys, then values.
  void head(int64_t r, int64_t h, const Place& p) const {
    const T* from = row(r) + h * D_;
    if (h >= H_ + G_) return write_value(from, h - H_ - G_, p);
    bool query = h < H_;
    float x[kMostHeadSize];
    for_lanes(D_, [&](auto load_at, auto store_at) { store_at(x, load_at(from)); });
    if (query && op_.query_norm) norm(x, op_.query_norm, h, H_, p.query_rstd);
    if (!query && op_.key_norm) norm(x, op_.key_norm, h - H_, G_, p.key_rstd);
    if (op_.table) rotate(x, p.position);
    if (!query) return write_key(x, h - H_, p);
    T* to = op_.q.as<T>() + (r * H_ + h) * D_;
    for_lanes(D_, [&](auto load_at, auto store_at) { store_at(to, load_at(x)); });
  }

  void norm(float* x, const Tensor& weight, int64_t h, int64_t heads, float whole_rstd) const {
    bool all = whole(weight, heads);
    float factor = all ? whole_rstd : rstd(square_sum(x, D_), D_);
    auto apply = [&](const auto* w) {
      for_lanes(D_, [&](auto load_at, auto store_at) { store_at(x, load_at(x) * factor * load_at(w)); });
    };
    int64_t first = all ? h * D_ : 0;
    if (weight.dtype == DType::f32)
      apply(weight.as<float>() + first);
    else
      apply(weight.as<T>() + first);
  }

  void rotate(float* x, int64_t position) const {
    int64_t half = op_.half();
    const float *cosine = op_.table.as<float>() + position * 2 * half, *sine = cosine + half;
    if (op_.interleaved) {
      for (int64_t d = 0; d < half; ++d) {
        float a = x[2 * d], b = x[2 * d + 1];
        x[2 * d] = a * cosine[d] - b * sine[d];
        x[2 * d + 1] = b * cosine[d] + a * sine[d];
      }
      return;
    }
    for_lanes(half, [&](auto load_at, auto store_at) {
      Vec a = load_at(x), b = load_at(x + half), c = load_at(cosine), s = load_at(sine);
      store_at(x, a * c - b * s);
      store_at(x + half, b * c + a * s);
    });
  }

  void write_key(const float* x, int64_t g, const Place& p) const {
    K narrow[kMostHeadSize];
    float scale = narrow_head(x, D_, narrow);
    K* to = op_.kv.keys.as<K>() + op_.kv.key_at(p.page, g, p.slot, 0);
    for (int64_t d = 0, page = op_.kv.page(); d < D_; ++d) to[d * page] = narrow[d];
    if (op_.kv.key_scales) op_.kv.key_scales.as<float>()[op_.kv.scale_at(p.page, g, p.slot)] = scale;
  }
  void write_value(const T* from, int64_t g, const Place& p) const {
    float x[kMostHeadSize];
    for_lanes(D_, [&](auto load_at, auto store_at) { store_at(x, load_at(from)); });
    float scale = narrow_head(x, D_, op_.kv.values.as<K>() + op_.kv.value_at(p.page, g, p.slot, 0));
    if (op_.kv.value_scales) op_.kv.value_scales.as<float>()[op_.kv.scale_at(p.page, g, p.slot)] = scale;
  }

  const PagedWrite& op_;
  int64_t H_, G_, D_;
};

}  // namespace

void paged_write(const PagedWrite& op) {
  dispatch_paged(op.qkv.dtype, op.kv.keys.dtype, [&]<class T, class K>() { Write<T, K>(op).run(); });
}

}  // namespace ds::DS_ISA
