// CUDA's kernel language on the CPU: .cu files compile with g++ and run here, one fiber a CUDA thread.
//
// Every thread runs until it blocks at a barrier or a warp operation, then the next one of its warp does, and a warp
// runs until all of it waits for others. That is as unlike lockstep as a schedule can be, so that a missing barrier
// gives wrong numbers. Errors, each with kernel, block and place: threads that never meet at a barrier, that meet at
// different ones, that have left the kernel before it; a warp operation that a named lane doesn't join. Under
// ThreadSanitizer each fiber counts as a thread, and missing barriers are data races.
//
// Not emulated: the memory model below barriers, occupancy, timing. Include launch.cuh, not this.
#pragma once
#include "runtime.h"
// Before the words below change their meaning: these use them.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace ds::emulation {

struct Site {
  const char* what;
  const char* file;
  int line;
};

// What a running thread sees of itself.
struct Thread {
  uint3 thread_index, block_index;
  dim3 block_size, grid_size;
  unsigned lane;
};
const Thread& self();

void sync_block(const Site& site);
void sync_warp(unsigned mask, const Site& site);

// A value of each lane, at most this large, handed round a warp.
constexpr size_t kSlotBytes = 32;
struct alignas(16) Slot {
  unsigned char bytes[kSlotBytes];
};
// Where this lane puts its value for the exchange among `mask`; the slots of all lanes once all have put theirs; and
// the end of reading.
Slot* begin_exchange(unsigned mask);
const Slot* exchanged(unsigned mask, const Site& site);
void end_exchange(unsigned mask, const Site& site);

void* shared(const void* site, size_t bytes);
void* dynamic_shared();

// Copies that arrive when they are waited for and not before: the target holds NaN meanwhile. A null source gives
// zeros.
void copy_async_16(void* shared, const void* global);
void copy_async_commit();
void copy_async_wait(size_t pending_groups);

// Puts `value` before the other lanes and gives read(all), where all(lane) is the value of a lane.
template <class T, class Read>
auto exchange(unsigned mask, const T& value, const Site& site, Read&& read) {
  static_assert(sizeof(T) <= kSlotBytes && std::is_trivially_copyable_v<T>);
  std::memcpy(begin_exchange(mask)->bytes, &value, sizeof value);
  const Slot* slots = exchanged(mask, site);
  auto result = read([slots](unsigned lane) {
    T other;
    std::memcpy(&other, slots[lane].bytes, sizeof other);
    return other;
  });
  end_exchange(mask, site);
  return result;
}

// The value of lane `source` of this warp.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, const Site& site) {
  return exchange(mask, value, site, [&](auto all) { return all(source % 32); });
}

}  // namespace ds::emulation

#define threadIdx (::ds::emulation::self().thread_index)
#define blockIdx (::ds::emulation::self().block_index)
#define blockDim (::ds::emulation::self().block_size)
#define gridDim (::ds::emulation::self().grid_size)

// The call's place, as default arguments of the functions below.
#define DS_EMULATED_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(DS_EMULATED_SITE) { ds::emulation::sync_block({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, DS_EMULATED_SITE) {
  ds::emulation::sync_warp(mask, {"__syncwarp", file, line});
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, DS_EMULATED_SITE) {
  unsigned lane = ds::emulation::self().lane, group = lane / width * width;
  return ds::emulation::shuffle(mask, value, group + unsigned(source) % width, {"__shfl_sync", file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, DS_EMULATED_SITE) {
  unsigned lane = ds::emulation::self().lane, source = lane ^ unsigned(flip);
  // A later group's value is never taken (CUDA C++ guide, "Warp Shuffle Functions").
  bool own = source / width > lane / width;
  return ds::emulation::shuffle(mask, value, own ? lane : source, {"__shfl_xor_sync", file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, DS_EMULATED_SITE) {
  unsigned lane = ds::emulation::self().lane;
  bool own = lane % width + delta >= unsigned(width);
  return ds::emulation::shuffle(mask, value, own ? lane : lane + delta, {"__shfl_down_sync", file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, DS_EMULATED_SITE) {
  unsigned lane = ds::emulation::self().lane;
  bool own = lane % width < delta;
  return ds::emulation::shuffle(mask, value, own ? lane : lane - delta, {"__shfl_up_sync", file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, DS_EMULATED_SITE) {
  return ds::emulation::exchange(mask, predicate != 0, {"__ballot_sync", file, line}, [&](auto all) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) votes |= unsigned(all(lane)) << lane;
    return votes;
  });
}
inline int __any_sync(unsigned mask, int predicate, DS_EMULATED_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, DS_EMULATED_SITE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

inline unsigned atomicCAS(unsigned* at, unsigned expected, unsigned value) {
  __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return expected;
}
// Whole numbers only: their sums don't depend on the order.
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  static_assert(std::is_integral_v<T>);
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

template <class T>
T __ldg(const T* p) {
  return *p;
}
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline void sincospi(double x, double* sine, double* cosine) {
  *sine = std::sin(x * M_PI);
  *cosine = std::cos(x * M_PI);
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
