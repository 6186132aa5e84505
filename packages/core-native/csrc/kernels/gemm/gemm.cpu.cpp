// A blocked product (Goto & van de Geijn 2008): a panel of B stays in the second-level cache, strips of A pass by, and
// a small block of C lives in registers. Both operands are packed, unless A's rows can be read where they are.
#include "gemm.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "../../runtime/pool.h"
#include "../common/dispatch.h"
#include "../common/gelu.h"
#include "../common/scratch.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

// Rows and vectors of C in registers: all but a few of the 32 (AVX-512) or 16 registers hold sums.
#if defined(__AVX512F__)
constexpr int kRows = 14, kVectors = 2;
#else
constexpr int kRows = 6, kVectors = 2;
#endif
constexpr int kColumns = kVectors * kLanes;
// Depth of a block, and columns of B packed at once: 384 x 192 floats are 288 KiB, half of a small second-level cache.
constexpr int64_t kDepth = 384, kPanelColumns = 192;
// Strips of a transposed A packed at once: their rows lie side by side, and a whole cache line is used when it is
// there.
constexpr int64_t kStripGroup = 8;
// Rows of C in one chunk of work: enough to pay for packing B, few enough to share.
constexpr int64_t kChunkRows = 512;

// A strip of A: element (row r, depth k) is at data[r * row + k * step].
struct Strip {
  const float* data;
  int64_t row, step;
};

template <int R, int V>
void multiply(int64_t depth, Strip a, const float* b, const float* in, float* out, int64_t out_stride) {
  Vec sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) sum[r][v] = in ? load(in + r * kColumns + v * kLanes) : Vec{};
  const float* p = a.data;
  for (int64_t k = 0; k < depth; ++k, p += a.step, b += V * kLanes) {
    Vec column[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) column[v] = load(b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec x = splat(p[r * a.row]);
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] = fma(x, column[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) store(out + r * out_stride + v * kLanes, sum[r][v]);
}

using Multiply = void (*)(int64_t, Strip, const float*, const float*, float*, int64_t);

template <int V, int... R>
constexpr auto kernels(std::integer_sequence<int, R...>) {
  struct Table {
    Multiply of[sizeof...(R)];
  };
  return Table{{multiply<R + 1, V>...}};
}
constexpr auto one_vector = kernels<1>(std::make_integer_sequence<int, kRows>{});
constexpr auto two_vectors = kernels<2>(std::make_integer_sequence<int, kRows>{});

template <class T>
Vec load_some(const T* p, int64_t n) {
  return n >= kLanes ? load(p) : n > 0 ? load_tail(p, n) : Vec{};
}

// Transposes kLanes rows of kLanes floats: column c of `from` becomes row c of `to`. Four rows' quarters are loaded
// side by side, so that two rounds of in-lane shuffles finish four columns.
inline void transpose(const float* from, int64_t stride, float* to, int64_t to_stride) {
#if defined(__AVX512F__)
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    __m512 row[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = from + i * stride + 4 * c;
      row[i] = _mm512_castps128_ps512(_mm_loadu_ps(p));
      row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps(p + 4 * stride), 1);
      row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps(p + 8 * stride), 2);
      row[i] = _mm512_insertf32x4(row[i], _mm_loadu_ps(p + 12 * stride), 3);
    }
    __m512d low0 = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1]));
    __m512d low2 = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]));
    __m512d high0 = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    __m512d high2 = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    float* q = to + 4 * c * to_stride;
    _mm512_storeu_ps(q, _mm512_castpd_ps(_mm512_unpacklo_pd(low0, low2)));
    _mm512_storeu_ps(q + to_stride, _mm512_castpd_ps(_mm512_unpackhi_pd(low0, low2)));
    _mm512_storeu_ps(q + 2 * to_stride, _mm512_castpd_ps(_mm512_unpacklo_pd(high0, high2)));
    _mm512_storeu_ps(q + 3 * to_stride, _mm512_castpd_ps(_mm512_unpackhi_pd(high0, high2)));
  }
#elif defined(__AVX2__)
#pragma GCC unroll 2
  for (int c = 0; c < 2; ++c) {
    __m256 row[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = from + i * stride + 4 * c;
      row[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
    }
    __m256d low0 = _mm256_castps_pd(_mm256_unpacklo_ps(row[0], row[1]));
    __m256d low2 = _mm256_castps_pd(_mm256_unpacklo_ps(row[2], row[3]));
    __m256d high0 = _mm256_castps_pd(_mm256_unpackhi_ps(row[0], row[1]));
    __m256d high2 = _mm256_castps_pd(_mm256_unpackhi_ps(row[2], row[3]));
    float* q = to + 4 * c * to_stride;
    _mm256_storeu_ps(q, _mm256_castpd_ps(_mm256_unpacklo_pd(low0, low2)));
    _mm256_storeu_ps(q + to_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(low0, low2)));
    _mm256_storeu_ps(q + 2 * to_stride, _mm256_castpd_ps(_mm256_unpacklo_pd(high0, high2)));
    _mm256_storeu_ps(q + 3 * to_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(high0, high2)));
  }
#else
  for (int c = 0; c < kLanes; ++c)
    for (int r = 0; r < kLanes; ++r) to[c * to_stride + r] = from[r * stride + c];
#endif
}

// Packs `n` stored rows of `depth` elements as [depth][width]; columns beyond n are zero.
template <class T>
void pack_transposed(const T* from, int64_t stride, int64_t n, int64_t depth, float* to, int64_t width) {
  for (int64_t group = 0; group < width; group += kLanes)
    for (int64_t k = 0; k < depth; k += kLanes) {
      int64_t filled = std::min<int64_t>(kLanes, depth - k), rows = std::min<int64_t>(kLanes, n - group);
      const T* p = from + group * stride + k;
      float* q = to + k * width + group;
      if constexpr (std::is_same_v<T, float>)
        if (rows == kLanes && filled == kLanes) {
          transpose(p, stride, q, width);
          continue;
        }
      alignas(64) float square[kLanes * kLanes], turned[kLanes * kLanes];
      for (int r = 0; r < kLanes; ++r) store(square + r * kLanes, r < rows ? load_some(p + r * stride, filled) : Vec{});
      transpose(square, kLanes, turned, kLanes);
      for (int64_t c = 0; c < filled; ++c) store(q + c * width, load(turned + c * kLanes));
    }
}

// Packs `depth` stored rows of `n` elements as [depth][width].
template <class T>
void pack_straight(const T* from, int64_t stride, int64_t n, int64_t depth, float* to, int64_t width) {
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t j = 0; j < width; j += kLanes) store(to + k * width + j, load_some(from + k * stride + j, n - j));
}

thread_local Scratch panel_scratch, strip_scratch, sum_scratch;

// Writes a block of finished sums, [rows][kColumns], through the epilogue.
template <class T, class B>
void finish(const Gemm& g, const float* sums, int64_t m, int64_t n, int64_t rows, int64_t columns) {
  const Epilogue& e = g.epilogue;
  for (int64_t r = 0; r < rows; ++r) {
    int64_t at = (m + r) * g.c.stride + n;
    T* c = static_cast<T*>(g.c.data) + at;
    for_lanes(columns, [&](auto load_at, auto store_at) {
      Vec x = load_at(sums + r * kColumns);
      if (e.bias) x += load_at(static_cast<const B*>(e.bias) + n);
      if (e.pre) store_at(static_cast<T*>(e.pre) + at, x);
      if (e.gelu) x = gelu(x);
      if (e.residual) x += load_at(static_cast<const T*>(e.residual) + at);
      if (g.accumulate) x += load_at(c);
      store_at(c, x);
    });
  }
}

void finish_any(const Gemm& g, const float* sums, int64_t m, int64_t n, int64_t rows, int64_t columns) {
  dispatch_float(g.c.dtype, [&]<class T>() {
    if (g.epilogue.bias_dtype == DType::f32) return finish<T, float>(g, sums, m, n, rows, columns);
    finish<T, T>(g, sums, m, n, rows, columns);
  });
}

struct Tile {
  int64_t m0, m1, n0, n1;
};

// Computes one tile of C: for every block of depth, packs its panel of B and sends the strips of A past it.
void compute_tile(const Gemm& g, Tile t) {
  const Epilogue& e = g.epilogue;
  bool plain = g.c.dtype == DType::f32 && !g.accumulate && !e.bias && !e.pre && !e.gelu && !e.residual;
  bool direct = g.a.dtype == DType::f32 && !g.a.transposed;
  int64_t blocks = std::max<int64_t>(1, (g.K + kDepth - 1) / kDepth);
  int64_t depth_each = ((g.K + blocks - 1) / blocks + 15) / 16 * 16;
  int64_t panels = (t.n1 - t.n0 + kColumns - 1) / kColumns, strips = (t.m1 - t.m0 + kRows - 1) / kRows;
  float* packed_b = panel_scratch.take<float>(size_t(depth_each * panels * kColumns));
  constexpr int64_t kStripWidth = (kRows + kLanes - 1) / kLanes * kLanes;
  int64_t strip_size = depth_each * kStripWidth;
  float* packed_a = strip_scratch.take<float>(size_t(strip_size * kStripGroup));
  float* sums = sum_scratch.take<float>(size_t(strips * panels * kRows * kColumns));
  for (int64_t block = 0; block < blocks; ++block) {
    int64_t k0 = block * depth_each, depth = std::max<int64_t>(0, std::min(depth_each, g.K - k0));
    bool first = block == 0, last = block + 1 == blocks;
    dispatch_float(g.b.dtype, [&]<class T>() {
      const T* b = static_cast<const T*>(g.b.data);
      for (int64_t j = 0; j < panels; ++j) {
        int64_t n = t.n0 + j * kColumns, have = std::min<int64_t>(kColumns, t.n1 - n);
        int64_t width = (have + kLanes - 1) / kLanes * kLanes;
        float* to = packed_b + j * kColumns * depth_each;
        if (g.b.transposed)
          pack_transposed(b + n * g.b.stride + k0, g.b.stride, have, depth, to, width);
        else
          pack_straight(b + k0 * g.b.stride + n, g.b.stride, have, depth, to, width);
      }
    });
    for (int64_t i = 0; i < strips; ++i) {
      int64_t m = t.m0 + i * kRows, rows = std::min<int64_t>(kRows, t.m1 - m);
      Strip strip{static_cast<const float*>(g.a.data) + m * g.a.stride + k0, g.a.stride, 1};
      if (!direct)
        dispatch_float(g.a.dtype, [&]<class T>() {
          const T* a = static_cast<const T*>(g.a.data);
          if (g.a.transposed) {
            int64_t place = i % kStripGroup, wide = std::min(kStripGroup * kRows, t.m1 - m);
            if (place == 0)
              for (int64_t k = 0; k < depth; ++k)
                for (int64_t x = 0; x * kRows < wide; ++x) {
                  const T* from = a + (k0 + k) * g.a.stride + m + x * kRows;
                  float* to = packed_a + x * strip_size + k * kStripWidth;
                  for (int64_t v = 0; v < kStripWidth; v += kLanes)
                    store(to + v, load_some(from + v, std::min<int64_t>(kRows, wide - x * kRows) - v));
                }
            strip = {packed_a + place * strip_size, 1, kStripWidth};
          } else {
            for (int64_t r = 0; r < rows; ++r)
              for_lanes(depth, [&](auto load_at, auto store_at) {
                store_at(packed_a + r * depth_each, load_at(a + (m + r) * g.a.stride + k0));
              });
            strip = {packed_a, depth_each, 1};
          }
        });
      for (int64_t j = 0; j < panels; ++j) {
        int64_t n = t.n0 + j * kColumns, have = std::min<int64_t>(kColumns, t.n1 - n);
        int vectors = int((have + kLanes - 1) / kLanes);
        float* sum = sums + (i * panels + j) * kRows * kColumns;
        auto kernel = (vectors == 1 ? one_vector.of : two_vectors.of)[rows - 1];
        const float* b = packed_b + j * kColumns * depth_each;
        if (last && plain && have == vectors * kLanes) {
          kernel(depth, strip, b, first ? nullptr : sum, static_cast<float*>(g.c.data) + m * g.c.stride + n,
                 g.c.stride);
          continue;
        }
        kernel(depth, strip, b, first ? nullptr : sum, sum, kColumns);
        if (last) finish_any(g, sum, m, n, rows, have);
      }
    }
  }
}

}  // namespace

void gemm(const Gemm& g) {
  if (g.M == 0 || g.N == 0) return;
  // Tiles of equal size, cut by the problem alone; neighbours in the list share a panel of B.
  int64_t down = (g.M + kChunkRows - 1) / kChunkRows, across = (g.N + kPanelColumns - 1) / kPanelColumns;
  int64_t rows = ((g.M + down - 1) / down + kRows - 1) / kRows * kRows;
  int64_t columns = ((g.N + across - 1) / across + kColumns - 1) / kColumns * kColumns;
  down = (g.M + rows - 1) / rows, across = (g.N + columns - 1) / columns;
  parallel_for(down * across, [&](int64_t tile) {
    int64_t m = tile % down * rows, n = tile / down * columns;
    compute_tile(g, {m, std::min(g.M, m + rows), n, std::min(g.N, n + columns)});
  });
}

}  // namespace ds::DS_ISA
