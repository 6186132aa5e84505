// The product of prepared rows with a packed weight: which kernel, in what order through memory, on which threads.
//
// Few rows: every task streams through a range of groups once. Many rows: a panel of groups, as much of it as stays in
// the second-level cache, meets one strip of x after the other. The order of a sum is the same either way.
#pragma once
#include "packed_floats.h"
#include "packed_integers.h"

namespace ds::DS_ISA {

struct PackedKernels {
  int rows;         // of the highest strip
  bool magnitudes;  // whether they read those of the integers
  const StripKernels* by_height;

  const StripKernels& of(int64_t height) const { return by_height[height - 1]; }
};

template <class Kernel>
PackedKernels packed_kernels() {
  return {Kernel::kRows, Kernel::kMagnitudes, kernels_by_height<Kernel>.of};
}

template <PackedFormat kFormat>
PackedKernels integer_kernels() {
#if defined(__AVX512F__)
  if (has_fours()) return packed_kernels<FoursKernel<kFormat>>();
#endif
#if defined(__AVX2__)
  return packed_kernels<PairsKernel<kFormat>>();
#else
  return packed_kernels<PlainKernel<kFormat>>();
#endif
}

inline PackedKernels packed_kernels(PackedFormat format) {
  switch (format) {
    case PackedFormat::f32:
      return packed_kernels<FloatKernel<PackedFormat::f32>>();
    case PackedFormat::bf16:
      return packed_kernels<FloatKernel<PackedFormat::bf16>>();
    case PackedFormat::f16:
      return packed_kernels<FloatKernel<PackedFormat::f16>>();
    case PackedFormat::q8:
      return integer_kernels<PackedFormat::q8>();
    case PackedFormat::q4:
      return integer_kernels<PackedFormat::q4>();
  }
  return {};
}

// The rows of x as the kernels of a format want them.
inline PackedInputs prepare_inputs(const Tensor& x, const RowNorm& norm, PackedFormat format) {
  PackedKernels kernels = packed_kernels(format);
  return prepare_inputs(x, norm, format, kernels.rows, kernels.magnitudes);
}

constexpr int64_t kFewStrips = 3;
constexpr int64_t kPanelBytes = 256 << 10;  // half of a small second-level cache
// Blocks of depth: of a strip of x that stays in the first-level cache beside what passes by, and of a group that does
// where strips are few.
constexpr int64_t kFloatDepth = 12, kIntegerDepth = 64, kFewDepth = 4;
constexpr int64_t kTaskRows = 240, kTaskBytes = 128 << 10, kLeastTasks = 16;

// Where one task finds its work: strips and groups, from one up to another.
struct PackedPart {
  int64_t strip_begin, strip_end, group_begin, group_end;
};

// How a part goes through memory: `panel` groups at a time, `depth` blocks of them. A panel of a 16-bit weight that
// many strips meet is widened once.
struct PackedPasses {
  int64_t panel, depth;
  bool widened;

  PackedPasses(PackedFormat format, int64_t strips, int64_t blocks) {
    bool integers = is_quantised(format);
    depth = strips == 1 ? blocks : strips <= kFewStrips ? kFewDepth : integers ? kIntegerDepth : kFloatDepth;
    depth = std::min(depth, blocks);
    widened = strips > kFewStrips && (format == PackedFormat::bf16 || format == PackedFormat::f16);
    int64_t slice = depth * packed_block_bytes(integers ? format : PackedFormat::f32);
    panel = strips <= kFewStrips ? kFloatStreams : std::max<int64_t>(1, kPanelBytes / slice);
  }
};

inline thread_local Scratch packed_sums, packed_panel;

// Computes a part in the calling thread and hands each group's sums [H][16] of each strip to
// finish(first row, H, group, sums).
template <class Finish>
void multiply_part(const PackedWeight& weight, const PackedInputs& in, const PackedPart& part, Finish&& finish) {
  int64_t strips = part.strip_end - part.strip_begin, first = in.strips.first(part.strip_begin);
  int64_t rows = in.strips.first(part.strip_end - 1) + in.strips.height(part.strip_end - 1) - first;
  PackedPasses passes(weight.format(), strips, in.blocks);
  int64_t panel = std::min(passes.panel, part.group_end - part.group_begin);
  PackedKernels kernels = packed_kernels(passes.widened ? PackedFormat::f32 : weight.format());
  float* sums = packed_sums.take<float>(size_t(rows * panel * kGroupRows));
  for (int64_t g = part.group_begin; g < part.group_end; g += panel) {
    int64_t wide = std::min(panel, part.group_end - g);
    for (int64_t d = 0; d < in.blocks; d += passes.depth) {
      Depth depth{d, std::min(passes.depth, in.blocks - d)};
      const uint8_t* from = weight.group(g) + d * packed_block_bytes(weight.format());
      int64_t stride = weight.group_bytes();
      if (passes.widened) {
        int64_t floats = passes.depth * kBlockColumns * kGroupRows;
        float* to = packed_panel.take<float>(size_t(panel * floats));
        for (int64_t p = 0; p < wide; ++p)
          weight.format() == PackedFormat::bf16
              ? widen_group<PackedFormat::bf16>(from + p * stride, depth.blocks, to + p * floats)
              : widen_group<PackedFormat::f16>(from + p * stride, depth.blocks, to + p * floats);
        from = reinterpret_cast<const uint8_t*>(to);
        stride = floats * 4;
      }
      for (int64_t s = part.strip_begin; s < part.strip_end; ++s) {
        int64_t row = in.strips.first(s), H = in.strips.height(s);
        const StripKernels& kernel = kernels.of(H);
        float* strip_sums = sums + (row - first) * panel * kGroupRows;
        auto run = [&](PackedKernel multiply, int64_t p) {
          multiply(in, row, depth, from + p * stride, stride, strip_sums + p * H * kGroupRows);
        };
        int64_t p = 0;
        for (; p + kernel.streams <= wide; p += kernel.streams) run(kernel.several, p);
        for (; p < wide; ++p) run(kernel.one, p);
        if (d + depth.blocks == in.blocks)
          for (p = 0; p < wide; ++p) finish(row, H, g + p, strip_sums + p * H * kGroupRows);
      }
    }
  }
}

// The tasks of a product, cut by its size alone.
struct PackedTasks {
  int64_t strips_each, groups_each, down, across;
  const PackedInputs& in;
  int64_t groups;

  PackedTasks(const PackedWeight& weight, const PackedInputs& in) : in(in), groups(weight.groups()) {
    int64_t strips = in.strips.count, rows = in.strips.rows;
    down = (rows + kTaskRows - 1) / kTaskRows;
    strips_each = (strips + down - 1) / down;
    down = (strips + strips_each - 1) / strips_each;
    // Whole sets of streams.
    int64_t by_bytes = kTaskBytes / weight.group_bytes() / 4 * 4, by_count = groups / (kLeastTasks / down + 1) / 4 * 4;
    groups_each = std::max<int64_t>(4, std::min(by_bytes, by_count));
    if (strips_each > kFewStrips) groups_each = std::max<int64_t>(4, std::min<int64_t>(16, by_count));
    across = (groups + groups_each - 1) / groups_each;
  }
  int64_t count() const { return down * across; }
  PackedPart part(int64_t task) const {
    int64_t s = task % down * strips_each, g = task / down * groups_each;
    return {s, std::min(in.strips.count, s + strips_each), g, std::min(groups, g + groups_each)};
  }
};

}  // namespace ds::DS_ISA
