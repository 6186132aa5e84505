// Stacks that a thread can switch between, for the emulation. Sanitizers are told of every switch.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef DS_EMULATION_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace ds::emulation {

// For ThreadSanitizer: what came before `order_before(mark)` on one fiber happens before what follows a later
// `order_after(mark)` on another. Switching itself orders nothing.
inline void order_before([[maybe_unused]] void* mark) {
#ifdef DS_EMULATION_TSAN
  __tsan_release(mark);
#endif
}
inline void order_after([[maybe_unused]] void* mark) {
#ifdef DS_EMULATION_TSAN
  __tsan_acquire(mark);
#endif
}

#if defined(__x86_64__)
// Keeps the callee-saved registers on the stack that is left and takes those of the stack that is entered.
extern "C" void ds_switch_stack(void** leave, void* enter);
asm(R"(
.text
.weak ds_switch_stack
.hidden ds_switch_stack
.type ds_switch_stack, @function
ds_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size ds_switch_stack, .-ds_switch_stack
)");
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(DS_EMULATION_TSAN)
constexpr size_t kStackBytes = 512 << 10;  // instrumented frames are large
#else
constexpr size_t kStackBytes = 128 << 10;
#endif
constexpr size_t kGuardBytes = 4096;

// The stack of the OS thread, from which fibers are resumed.
struct FiberHost {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* fake_stack = nullptr;
  void* tsan = nullptr;
};

class Fiber {
 public:
  Fiber() = default;
  Fiber(const Fiber&) = delete;
  ~Fiber() {
#ifdef DS_EMULATION_TSAN
    if (tsan_) __tsan_destroy_fiber(tsan_);
#endif
    if (stack_) munmap(stack_, kGuardBytes + kStackBytes);
  }

  bool started() const { return started_; }

  // Makes `entry` what the next resume runs. It must end with finish().
  void start(FiberHost& host, void (*entry)()) {
    if (!stack_) {
      void* p = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) throw std::bad_alloc();
      stack_ = static_cast<char*>(p);
      mprotect(stack_, kGuardBytes, PROT_NONE);  // an overflow must not reach a neighbour
#ifdef DS_EMULATION_TSAN
      tsan_ = __tsan_create_fiber(0);
#endif
    }
    started_ = true;
    entry_ = entry;
    host_ = &host;
    fake_stack_ = nullptr;
#if defined(__x86_64__)
    void** top = reinterpret_cast<void**>(stack_ + kGuardBytes + kStackBytes);
    *--top = nullptr;  // entry's return address; keeps the stack 16-byte aligned as a call would
    *--top = reinterpret_cast<void*>(&enter);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    stack_pointer_ = top;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_ + kGuardBytes;
    context_.uc_stack.ss_size = kStackBytes;
    context_.uc_link = nullptr;
    makecontext(&context_, &enter, 0);
#endif
  }

  void resume(FiberHost& host) {
    starting() = this;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&host.fake_stack, stack_ + kGuardBytes, kStackBytes);
#endif
#ifdef DS_EMULATION_TSAN
    host.tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    ds_switch_stack(&host.stack_pointer, stack_pointer_);
#else
    swapcontext(&host.context, &context_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
#endif
  }

  // Back to the host; returns when it resumes this fiber.
  void suspend(FiberHost& host) { leave(host, &fake_stack_); }
  // Back to the host for good; the stack serves the next start.
  void finish(FiberHost& host) {
    started_ = false;
#if defined(__SANITIZE_ADDRESS__)
    // The frames that are left without returning: this one and its callers.
    auto* here = static_cast<char*>(__builtin_frame_address(0));
    __asan_unpoison_memory_region(here, size_t(stack_ + kGuardBytes + kStackBytes - here));
#endif
    leave(host, nullptr);
  }

  // Forgets a suspended fiber, wherever it stands.
  void abandon() {
    started_ = false;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stack_ + kGuardBytes, kStackBytes);
#endif
#ifdef DS_EMULATION_TSAN
    __tsan_destroy_fiber(tsan_);
    tsan_ = __tsan_create_fiber(0);
#endif
  }

 private:
  static Fiber*& starting() {
    static thread_local Fiber* fiber = nullptr;
    return fiber;
  }

  static void enter() {
    Fiber* self = starting();
    self->entered();
    self->entry_();
    __builtin_trap();  // entry ended without finish()
  }

  // The first and every later arrival on the fiber's stack.
  void entered() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack_, &host_->bottom, &host_->bytes);
#endif
  }

  void leave(FiberHost& host, [[maybe_unused]] void** fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake_stack, host.bottom, host.bytes);
#endif
#ifdef DS_EMULATION_TSAN
    __tsan_switch_to_fiber(host.tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__x86_64__)
    ds_switch_stack(&stack_pointer_, host.stack_pointer);
#else
    swapcontext(&context_, &host.context);
#endif
    entered();
  }

  char* stack_ = nullptr;
  bool started_ = false;
  void (*entry_)() = nullptr;
  FiberHost* host_ = nullptr;
#if defined(__x86_64__)
  void* stack_pointer_ = nullptr;
#else
  ucontext_t context_;
#endif
  void* fake_stack_ = nullptr;
  void* tsan_ = nullptr;
};

}  // namespace ds::emulation
