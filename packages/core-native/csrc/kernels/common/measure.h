// The machine's own limits, measured the way the kernels run: on the pool, with the vector unit in use, work cut into
// chunks. A benchmark divides by them, so that its share does not depend on whose machine it ran on.
//
// memcpy: a = b by memcpy              stream_copy: a = b past the caches
// read: the sum of a                   triad: a = b + 3 c
// adam_mix: a, b, c = sums with d (4 reads, 3 writes in place)
// fma: fused multiply-adds on registers
#pragma once
#include <cstdint>

#include "cpu_isa.h"

namespace ds {

enum class Roofline { memcpy, stream_copy, read, triad, adam_mix, fma };
constexpr const char* kRooflineNames[] = {"memcpy", "stream_copy", "read", "triad", "adam_mix", "fma"};

constexpr int kRooflineSteps = 96;  // multiply-adds for each of the n elements; a multiple of the chains

// One pass over `n` floats in each of the arrays, which are aligned to 64 bytes; fma only counts.
struct RooflinePass {
  Roofline kind;
  float *a, *b, *c, *d;
  int64_t n;

  // What a pass moves (bytes read plus written, without the reads that a plain store causes), or computes (flop).
  double work() const;
  void cpu() const;
};

// The median rate of `repeats` passes over arrays of `elements` floats: bytes or flop a second. Blocks the caller.
double measure_roofline(Roofline kind, int64_t elements, int repeats);

DS_CPU_KERNEL(RooflinePass, roofline_pass)

}  // namespace ds
