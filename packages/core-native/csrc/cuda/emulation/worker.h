// Runs the blocks of a grid, one after the other, on the OS thread that holds it.
#pragma once
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "language.h"

namespace ds::emulation {

constexpr unsigned kAllLanes = 0xffffffffu;

enum class State : uint8_t { ready, at_block_barrier, at_warp_barrier, done };

struct AsyncCopy {
  void* shared;
  const void* global;
  size_t group;
};

struct EmulatedThread : Thread {
  Fiber fiber;
  State state = State::done;
  unsigned mask = 0;  // of the warp barrier it waits at
  Site site{};
  std::vector<AsyncCopy> copies;
  size_t copy_groups = 0;       // closed ones
  bool exchanging_odd = false;  // which of the warp's two rows of slots its next full exchange takes
};

// What a barrier orders, for ThreadSanitizer. Two by turns: whoever is late to leave one barrier must not be ordered
// behind those that already wait at the next.
struct Marks {
  char mark[2];
  bool second = false;
  char* current() { return &mark[second]; }
};

struct Warp {
  // A full exchange ends without a barrier: a lane may enter the next one while others still read, hence two rows. An
  // exchange of some lanes has a row of its own and a barrier at its end.
  Slot full[2][32], partial[32];
  unsigned waiting = 0;
  Marks marks;        // of barriers of all lanes
  char partial_mark;  // of all others: they may overlap
};

using SharedMemory = std::unique_ptr<void, decltype(&std::free)>;

struct SharedVariable {
  const void* site;
  size_t bytes;
  SharedMemory data;
};

// What a kernel did wrong, and where. Plain: it is noted on a stack that is never unwound.
struct Mistake {
  const char* what = nullptr;
  Site site{}, other{};
};

class Worker {
 public:
  void begin_grid(const Launch& launch, const std::function<void()>& body);
  void run_block(uint64_t block);

  EmulatedThread* current = nullptr;
  std::string error;

  void block_barrier(const Site& site);
  void warp_barrier(unsigned mask, const Site& site);
  Warp& warp() { return warps_[size_t(current - threads_.data()) / 32]; }
  void* shared(const void* site, size_t bytes);
  void* dynamic_shared() { return dynamic_.get(); }

 private:
  void begin_block(uint64_t block);
  void run(EmulatedThread& thread);
  size_t run_ready(uint64_t block, uint64_t pass);
  void wait(State state, const Site& site);
  [[noreturn]] void fail(const Mistake& mistake);
  std::string stuck() const;

  const std::function<void()>* body_ = nullptr;
  const Launch* launch_ = nullptr;
  std::vector<EmulatedThread> threads_;
  std::vector<Warp> warps_;
  std::vector<SharedVariable> variables_;
  SharedMemory dynamic_{nullptr, &std::free};
  size_t static_bytes_ = 0;
  size_t size_ = 0, at_barrier_ = 0;  // threads of the block
  Mistake mistake_;
  Marks barrier_marks_;
  char begin_mark_, end_mark_;  // the block's
  FiberHost host_;
};

// Fills with NaN of any float format. Not by memset: ThreadSanitizer would take it for the kernel's own write.
void poison(void* data, size_t bytes);

// The one that runs on this OS thread.
extern thread_local Worker* worker;

}  // namespace ds::emulation
