// Wait on a 32-bit word until it changes: a short spin, then sleep in the kernel. Works across processes too.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#else
#include <thread>
#endif

namespace ds {

inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleeps while `word == seen`, at most `timeout_ns` (< 0: for ever). May wake early: callers loop.
// `shared` words live in memory that several processes map.
inline void futex_wait(std::atomic<uint32_t>& word, uint32_t seen, int64_t timeout_ns = -1, bool shared = false) {
#if defined(__linux__)
  timespec limit{timeout_ns / 1000000000, timeout_ns % 1000000000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE, seen,
          timeout_ns < 0 ? nullptr : &limit, nullptr, 0);
#else
  (void)shared;
  auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout_ns < 0 ? 1000000 : timeout_ns);
  while (word.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::microseconds(20));
#endif
}

inline void futex_wake(std::atomic<uint32_t>& word, bool shared = false) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, 1 << 30, nullptr,
          nullptr, 0);
#else
  (void)word, (void)shared;
#endif
}

// Spins up to `spin_ns` for ready() before the caller goes to sleep. Bounded, because on a shared machine a
// spinning thread takes the core from the very thread it waits for.
template <class Ready>
bool spin_until(Ready&& ready, int64_t spin_ns) {
  auto end = std::chrono::steady_clock::now() + std::chrono::nanoseconds(spin_ns);
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      cpu_relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

}  // namespace ds
