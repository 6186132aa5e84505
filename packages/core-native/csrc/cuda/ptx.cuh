// The instructions that CUDA C++ has no words for, each with a twin for the emulation: the only place of PTX.
//
// Layouts are those of the PTX ISA 8.x, "Warp Level Matrix Multiply-Accumulate" and "ldmatrix". With g = lane / 4 and
// t = lane % 4, for m16n8k16 on 16-bit elements, two in a register, the lower column in the lower half:
//   A (16 x 16, row major)  a[0]: row g,     columns 2t, 2t + 1      a[1]: row g + 8, the same columns
//                           a[2]: row g,     columns 2t + 8, 2t + 9  a[3]: row g + 8, those columns
//   B (16 x 8)              b[0]: rows 2t, 2t + 1 of column g        b[1]: rows 2t + 8, 2t + 9
//   C, D (16 x 8, f32)      c[0], c[1]: row g, columns 2t, 2t + 1    c[2], c[3]: row g + 8
// and for m16n8k8 on tf32: a[0]: (g, t), a[1]: (g + 8, t), a[2]: (g, t + 4), a[3]: (g + 8, t + 4); b[0]: (t, g),
// b[1]: (t + 4, g); C as above. For m16n8k32 on bytes, four in a register, a[0]: row g, columns 4t .. 4t + 3; a[1]: row
// g + 8; a[2], a[3]: those rows, columns 4t + 16 ..; b[0]: rows 4t .. 4t + 3 of column g; b[1]: rows 4t + 16 ..; C as
// above.
#pragma once
#include "types.cuh"

namespace ds::cuda {

#ifdef DS_CUDA_EMU
#define DS_PTX_SITE , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#else
#define DS_PTX_SITE

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }
#endif

// Starts a copy of 16 bytes from global to shared memory, or of zeros where `valid` is false (the source is then not
// read). Both aligned to 16 bytes. Compute capability 8.0.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid = true) {
#ifdef DS_CUDA_EMU
  emulation::copy_async_16(shared, valid ? global : nullptr);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
#endif
}

// Closes a group of this thread's copies.
__device__ __forceinline__ void copy_async_commit() {
#ifdef DS_CUDA_EMU
  emulation::copy_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all but the latest kPending groups of this thread have arrived. What other threads copied is there only
// after a __syncthreads behind it.
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
#ifdef DS_CUDA_EMU
  emulation::copy_async_wait(kPending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Loads kMatrices (2 or 4) matrices of 8 x 8 16-bit elements. Lane 8 m + r gives the address of row r of matrix m, 16
// bytes, aligned to 16. r[m] gets row g, columns 2t and 2t + 1 of matrix m, or of its transpose.
template <bool kTransposed, int kMatrices>
__device__ __forceinline__ void load_matrices(uint32_t (&r)[kMatrices], const void* row DS_PTX_SITE) {
  static_assert(kMatrices == 2 || kMatrices == 4);
#ifdef DS_CUDA_EMU
  unsigned g = emulation::self().lane / 4, t = emulation::self().lane % 4;
  emulation::exchange(kAllLanes, row, {"ldmatrix", file, line}, [&](auto rows) {
    for (unsigned m = 0; m < kMatrices; ++m) {
      auto element = [&](unsigned i, unsigned j) { return uint32_t(static_cast<const uint16_t*>(rows(8 * m + i))[j]); };
      r[m] = kTransposed ? element(2 * t, g) | element(2 * t + 1, g) << 16
                         : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
    }
    return 0;
  });
#else
  uint32_t address = shared_address(row);
  if constexpr (kMatrices == 4 && kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  else if constexpr (kMatrices == 4)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  else if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(address)
                 : "memory");
#endif
}

#ifdef DS_CUDA_EMU
// c += A B, where element (i, k) of A and (k, j) of B are what value(fragments of a lane) makes of them.
struct Fragments {
  uint32_t a[4], b[2];
};
template <int kDepth, class C, class A, class B>
void emulated_mma(C (&c)[4], const Fragments& own, const emulation::Site& site, A&& a_at, B&& b_at) {
  int g = int(emulation::self().lane) / 4, t = int(emulation::self().lane) % 4;
  emulation::exchange(kAllLanes, own, site, [&](auto all) {
    for (int e = 0; e < 4; ++e)
      for (int k = 0; k < kDepth; ++k) c[e] += a_at(all, g + e / 2 * 8, k) * b_at(all, k, 2 * t + e % 2);
    return 0;
  });
}
#endif

// c += A B with A 16 x 16 and B 16 x 8 of T = bf16 or f16, summed in f32. Compute capability 8.0.
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] DS_PTX_SITE) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
#ifdef DS_CUDA_EMU
  auto half_of = [](uint32_t word, int k) { return to_float(T{uint16_t(word >> (k % 2 * 16))}); };
  emulated_mma<16>(
      c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, {"mma", file, line},
      [&](auto all, int i, int k) { return half_of(all(unsigned(i % 8 * 4 + k % 8 / 2)).a[i / 8 + k / 8 * 2], k); },
      [&](auto all, int k, int j) { return half_of(all(unsigned(j * 4 + k % 8 / 2)).b[k / 8], k); });
#else
  if constexpr (std::is_same_v<T, bf16>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// c += A B with A 16 x 32 and B 32 x 8 of signed bytes, summed in 32 bits. Compute capability 8.0.
__device__ __forceinline__ void mma_16x8x32_s8(int32_t (&c)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2] DS_PTX_SITE) {
#ifdef DS_CUDA_EMU
  auto byte_of = [](uint32_t word, int k) { return int32_t(int8_t(word >> (k % 4 * 8))); };
  emulated_mma<32>(
      c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, {"mma", file, line},
      [&](auto all, int i, int k) { return byte_of(all(unsigned(i % 8 * 4 + k % 16 / 4)).a[i / 8 + k / 16 * 2], k); },
      [&](auto all, int k, int j) { return byte_of(all(unsigned(j * 4 + k % 16 / 4)).b[k / 16], k); });
#else
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 2^x within 2^-22 of itself; 0 where that is subnormal.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef DS_CUDA_EMU
  float power = std::exp2(x);
  return power < 0x1p-126f ? 0.0f : power;
#else
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#endif
}

// Rounds to TF32's 10 bits of fraction, to nearest, ties away from zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
#ifdef DS_CUDA_EMU
  return x != x ? 0x7fffffffu : (float_bits(x) + 0x1000u) & ~0x1fffu;
#else
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
#endif
}

// c += A B with A 16 x 8 and B 8 x 8 of TF32, summed in f32. Bits below TF32's fraction are ignored.
__device__ __forceinline__ void mma_16x8x8_tf32(float (&c)[4], const uint32_t (&a)[4],
                                                const uint32_t (&b)[2] DS_PTX_SITE) {
#ifdef DS_CUDA_EMU
  auto value = [](uint32_t word) { return bits_float(word & ~0x1fffu); };
  emulated_mma<8>(
      c, {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, {"mma", file, line},
      [&](auto all, int i, int k) { return value(all(unsigned(i % 8 * 4 + k % 4)).a[i / 8 + k / 4 * 2]); },
      [&](auto all, int k, int j) { return value(all(unsigned(j * 4 + k % 4)).b[k / 4]); });
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

}  // namespace ds::cuda
