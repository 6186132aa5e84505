// What the kernels of all formats have in common: their shape, and tables of them by the height of a strip.
#pragma once
#include <utility>

#include "packed_inputs.h"

namespace ds::DS_ISA {

// A part of the depth, in blocks of 32 columns.
struct Depth {
  int64_t begin, blocks;
};

// How far ahead of its use a weight is asked for, in bytes of a stream.
constexpr int kAhead = 2048;

// Multiplies the strip that begins at `first_row` with S groups, `stride` bytes apart: sums [S][H][16] go on from what
// they are, from 0 at the beginning of the depth.
using PackedKernel = void (*)(const PackedInputs& in, int64_t first_row, Depth depth, const uint8_t* groups,
                              int64_t stride, float* sums);

struct StripKernels {
  int streams;  // groups that `several` takes
  PackedKernel several, one;
};

// Kernel::run<H, S> for every height up to Kernel::kRows.
template <class Kernel, int... H>
constexpr auto strip_kernels(std::integer_sequence<int, H...>) {
  struct Table {
    StripKernels of[sizeof...(H)];
  };
  return Table{{{Kernel::streams(H + 1), Kernel::template run<H + 1, Kernel::streams(H + 1)>,
                 Kernel::template run<H + 1, 1>}...}};
}

// Entry H - 1 is for strips of H rows.
template <class Kernel>
inline constexpr auto kernels_by_height = strip_kernels<Kernel>(std::make_integer_sequence<int, Kernel::kRows>{});

template <int S, int H, int V, class F>
inline void each_sum(F&& fn) {
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s)
#pragma GCC unroll 12
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) fn(s, h, v);
}

}  // namespace ds::DS_ISA
