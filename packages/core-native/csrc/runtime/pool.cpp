#include "pool.h"

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "futex.h"

namespace ds {
namespace {

// Long enough to bridge the gap between two kernels of one layer, short enough to leave a contended core quickly.
constexpr int64_t kSpinNs = 20000;
thread_local bool inside_pool = false;

}  // namespace

struct Pool::State {
  std::mutex owner;  // held by the stream whose job the workers serve
  std::vector<std::thread> workers;

  void (*fn)(void*, int64_t) = nullptr;
  void* context = nullptr;
  int64_t chunks = 0;
  std::atomic<int64_t> next{0};
  std::atomic<uint32_t> generation{0};  // changes when a job is posted, or the pool stops
  std::atomic<uint32_t> busy{0};        // workers that may still touch the job
  std::atomic<uint32_t> asleep{0};      // spares the poster a system call while everybody spins
  std::atomic<bool> stop{false};
  std::atomic<bool> open{false};  // a worker may join the current job

  void drain() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) fn(context, i);
  }

  void work() {
    inside_pool = true;
    uint32_t seen = 0;
    while (true) {
      auto posted = [&] { return generation.load(std::memory_order_acquire) != seen; };
      if (!spin_until(posted, kSpinNs)) {
        asleep.fetch_add(1, std::memory_order_seq_cst);
        while (!posted()) futex_wait(generation, seen);
        asleep.fetch_sub(1, std::memory_order_relaxed);
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      // Announce first, look second: the poster closes the job first and reads `busy` second.
      busy.fetch_add(1, std::memory_order_seq_cst);
      if (open.load(std::memory_order_seq_cst)) drain();
      if (busy.fetch_sub(1, std::memory_order_seq_cst) == 1) futex_wake(busy);
    }
  }

  void start(int threads) {
    stop = false;
    for (int i = 1; i < threads; ++i) workers.emplace_back([this] { work(); });
  }

  void finish() {
    stop = true;
    generation.fetch_add(1, std::memory_order_release);
    futex_wake(generation);
    for (auto& w : workers) w.join();
    workers.clear();
  }
};

Pool& Pool::shared() {
  // Never destroyed: a stream thread may still run while the process tears down.
  static Pool* pool = new Pool();
  return *pool;
}

Pool::Pool() : state_(new State()) { state_->start(int(std::thread::hardware_concurrency())); }
Pool::~Pool() {
  state_->finish();
  delete state_;
}

int Pool::threads() const { return int(state_->workers.size()) + 1; }

void Pool::resize(int threads) {
  std::lock_guard lock(state_->owner);
  state_->finish();
  state_->start(threads < 1 ? 1 : threads);
}

void Pool::run(int64_t chunks, void (*fn)(void*, int64_t), void* context) {
  State& s = *state_;
  if (chunks <= 1 || inside_pool || !s.owner.try_lock()) {
    for (int64_t i = 0; i < chunks; ++i) fn(context, i);
    return;
  }
  std::lock_guard lock(s.owner, std::adopt_lock);
  if (s.workers.empty()) {
    for (int64_t i = 0; i < chunks; ++i) fn(context, i);
    return;
  }
  inside_pool = true;
  s.fn = fn, s.context = context, s.chunks = chunks;
  s.next.store(0, std::memory_order_relaxed);
  s.open.store(true, std::memory_order_seq_cst);
  s.generation.fetch_add(1, std::memory_order_seq_cst);
  if (s.asleep.load(std::memory_order_seq_cst)) futex_wake(s.generation);
  s.drain();
  s.open.store(false, std::memory_order_seq_cst);
  auto idle = [&] { return s.busy.load(std::memory_order_seq_cst) == 0; };
  if (!spin_until(idle, kSpinNs)) {
    for (uint32_t b; (b = s.busy.load(std::memory_order_seq_cst)) != 0;) futex_wait(s.busy, b);
  }
  inside_pool = false;
}

}  // namespace ds
