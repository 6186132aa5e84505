// The scheduler behind language.h. Compiled without ThreadSanitizer: to it, only what kernels do is of interest.
#include "language.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../../runtime/error.h"
#include "fiber.h"

namespace ds::emulation {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr size_t kStaticSharedBytes = 48 << 10;

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

struct Warp {
  // A full exchange ends without a barrier: a lane may enter the next one while others still read, hence two rows. An
  // exchange of some lanes has a row of its own and a barrier at its end.
  Slot full[2][32], partial[32];
  unsigned waiting = 0;
};

using SharedMemory = std::unique_ptr<void, decltype(&std::free)>;

struct SharedVariable {
  const void* site;
  size_t bytes;
  SharedMemory data;
};

// NaN in any float format. Not memset: ThreadSanitizer would take it for the kernel's own write.
void poison(void* data, size_t bytes) {
  auto* words = static_cast<volatile uint64_t*>(data);
  for (size_t i = 0; i < bytes / 8; ++i) words[i] = ~uint64_t(0);
  auto* rest = static_cast<volatile unsigned char*>(data);
  for (size_t i = bytes / 8 * 8; i < bytes; ++i) rest[i] = 0xff;
}

// Allocated to the byte, so that AddressSanitizer sees the first one beyond.
SharedMemory shared_memory(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, 16, bytes)) throw std::bad_alloc();
  poison(data, bytes);
  return {data, &std::free};
}

// Runs blocks, one after the other, on the OS thread that holds it.
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
  void* order_mark() { return &warps_; }

 private:
  void begin_block(uint64_t block);
  size_t run_ready(uint64_t block, uint64_t pass);
  void wait(State state, const Site& site);
  [[noreturn]] void fail(const std::string& what);
  std::string stuck() const;

  const std::function<void()>* body_ = nullptr;
  const Launch* launch_ = nullptr;
  std::vector<EmulatedThread> threads_;
  std::vector<Warp> warps_;
  std::vector<SharedVariable> variables_;
  SharedMemory dynamic_{nullptr, &std::free};
  size_t static_bytes_ = 0;
  size_t size_ = 0, at_barrier_ = 0;  // threads of the block
  FiberHost host_;
};

thread_local Worker* worker = nullptr;

std::string text(const Site& site) {
  std::string file = site.file;
  return std::string(site.what) + " at " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line);
}

bool same(const Site& a, const Site& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

uint3 index_in(uint64_t i, dim3 size) {
  return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / (uint64_t(size.x) * size.y))};
}

void Worker::begin_grid(const Launch& launch, const std::function<void()>& body) {
  launch_ = &launch;
  body_ = &body;
  size_ = size_t(launch.block.x) * launch.block.y * launch.block.z;
  if (threads_.size() < size_) threads_ = std::vector<EmulatedThread>(size_);
  if (warps_.size() < size_ / 32) warps_.resize(size_ / 32);
  variables_.clear();
  static_bytes_ = 0;
  dynamic_ = shared_memory(launch.shared_bytes);
}

void Worker::begin_block(uint64_t block) {
  at_barrier_ = 0;
  for (auto& w : warps_) w.waiting = 0;
  for (auto& v : variables_) poison(v.data.get(), v.bytes);
  poison(dynamic_.get(), launch_->shared_bytes);
  for (size_t i = 0; i < size_; ++i) {
    auto& t = threads_[i];
    static_cast<Thread&>(t) = {index_in(i, launch_->block), index_in(block, launch_->grid), launch_->block,
                               launch_->grid, unsigned(i % 32)};
    t.state = State::ready;
    t.exchanging_odd = false;
    t.copies.clear();
    t.copy_groups = 0;
  }
}

// One pass over the threads: each that is ready runs until it blocks or ends. Gives how many ran.
size_t Worker::run_ready(uint64_t block, uint64_t pass) {
  uint64_t order = settings().order;
  // The first two orders are plain; the others turn round at a place that changes from pass to pass.
  uint64_t start = order < 2 ? 0 : (order * 0x9E3779B97F4A7C15u + block * 31 + pass * 7) >> 8;
  size_t ran = 0;
  for (size_t i = 0; i < size_ && error.empty(); ++i) {
    size_t at = (i + start) % size_;
    auto& t = threads_[order & 1 ? size_ - 1 - at : at];
    if (t.state != State::ready) continue;
    ++ran;
    current = &t;
    if (!t.fiber.started())
      t.fiber.start(host_, [] {
        Worker& w = *worker;
        order_after(w.order_mark());
        (*w.body_)();
        order_before(w.order_mark());
        w.current->state = State::done;
        w.current->fiber.finish(w.host_);
      });
    t.fiber.resume(host_);
  }
  return ran;
}

void Worker::run_block(uint64_t block) {
  begin_block(block);
  order_before(order_mark());
  auto all_done = [&] {
    return std::all_of(threads_.begin(), threads_.begin() + long(size_),
                       [](auto& t) { return t.state == State::done; });
  };
  for (uint64_t pass = 0; error.empty() && !all_done(); ++pass)
    if (run_ready(block, pass) == 0) error = stuck();
  order_after(order_mark());
  if (error.empty()) return;
  uint3 at = index_in(block, launch_->grid);
  error += " (block " + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
  for (auto& t : threads_)
    if (t.fiber.started()) t.fiber.abandon();
}

void Worker::wait(State state, const Site& site) {
  current->site = site;
  current->state = state;
  current->fiber.suspend(host_);
}

void Worker::block_barrier(const Site& site) {
  order_before(order_mark());
  if (++at_barrier_ < size_) {
    wait(State::at_block_barrier, site);
  } else {
    at_barrier_ = 0;
    for (size_t i = 0; i < size_; ++i) {
      auto& t = threads_[i];
      if (&t == current) continue;
      if (!same(t.site, site)) fail("threads that meet at different barriers: " + text(t.site) + " and " + text(site));
      t.state = State::ready;
    }
  }
  order_after(order_mark());
}

void Worker::warp_barrier(unsigned mask, const Site& site) {
  if (!(mask >> current->lane & 1)) fail("a lane that its own mask leaves out, in " + text(site));
  auto& w = warp();
  order_before(&w);
  auto* lanes = current - current->lane;
  auto arrived = [&](unsigned lane) {
    auto& t = lanes[lane];
    return !(mask >> lane & 1) || &t == current || (t.state == State::at_warp_barrier && t.mask == mask);
  };
  bool all = ++w.waiting >= unsigned(__builtin_popcount(mask));
  for (unsigned lane = 0; lane < 32 && all; ++lane) all = arrived(lane);
  if (!all) {
    current->mask = mask;
    wait(State::at_warp_barrier, site);
  } else {
    w.waiting -= unsigned(__builtin_popcount(mask));
    for (unsigned lane = 0; lane < 32; ++lane) {
      auto& t = lanes[lane];
      if (!(mask >> lane & 1) || &t == current) continue;
      if (!same(t.site, site)) fail("lanes that meet at different places: " + text(t.site) + " and " + text(site));
      t.state = State::ready;
    }
  }
  order_after(&w);
}

void* Worker::shared(const void* site, size_t bytes) {
  for (auto& v : variables_)
    if (v.site == site) return v.data.get();
  static_bytes_ += bytes;
  if (static_bytes_ > kStaticSharedBytes) fail("more than 48 KiB of DS_SHARED");
  if (static_bytes_ + launch_->shared_bytes > kSharedBytes) fail("more shared memory than the device has");
  variables_.push_back({site, bytes, shared_memory(bytes)});
  return variables_.back().data.get();
}

void Worker::fail(const std::string& what) {
  error = what;
  current->state = State::at_block_barrier;
  current->fiber.suspend(host_);
  __builtin_unreachable();
}

// Why nobody can run: for each place where threads wait, how many.
std::string Worker::stuck() const {
  size_t left = 0;
  std::vector<std::pair<std::string, size_t>> places;
  for (size_t i = 0; i < size_; ++i) {
    auto& t = threads_[i];
    if (t.state == State::done) {
      ++left;
      continue;
    }
    auto found = std::find_if(places.begin(), places.end(), [&](auto& p) { return p.first == text(t.site); });
    if (found == places.end()) found = places.insert(places.end(), {text(t.site), 0});
    ++found->second;
  }
  std::string all;
  for (auto& [place, count] : places) all += std::to_string(count) + " threads at " + place + ", ";
  return "a barrier that not all threads reach: " + all + std::to_string(left) + " ended";
}

// Workers keep their stacks from launch to launch.
class Workers {
 public:
  std::unique_ptr<Worker> take() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Worker>();
    auto w = std::move(free_.back());
    free_.pop_back();
    return w;
  }
  void give(std::unique_ptr<Worker> w) {
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(w));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Worker>> free_;
};

Workers& workers() {
  static Workers all;
  return all;
}

}  // namespace

const Thread& self() { return *worker->current; }
void sync_block(const Site& site) { worker->block_barrier(site); }
void sync_warp(unsigned mask, const Site& site) { worker->warp_barrier(mask, site); }
void* shared(const void* site, size_t bytes) { return worker->shared(site, bytes); }
void* dynamic_shared() { return worker->dynamic_shared(); }

Slot* begin_exchange(unsigned mask) {
  auto& t = *worker->current;
  auto& w = worker->warp();
  return (mask == kAllLanes ? w.full[t.exchanging_odd] : w.partial) + t.lane;
}

const Slot* exchanged(unsigned mask, const Site& site) {
  sync_warp(mask, site);
  auto& w = worker->warp();
  return mask == kAllLanes ? w.full[worker->current->exchanging_odd] : w.partial;
}

void end_exchange(unsigned mask, const Site& site) {
  if (mask == kAllLanes)
    worker->current->exchanging_odd = !worker->current->exchanging_odd;
  else
    sync_warp(mask, site);
}

void copy_async_16(void* shared, const void* global) {
  auto& t = *worker->current;
  poison(shared, 16);
  t.copies.push_back({shared, global, t.copy_groups});
}

void copy_async_commit() { ++worker->current->copy_groups; }

void copy_async_wait(size_t pending_groups) {
  auto& t = *worker->current;
  auto arrived = std::partition(t.copies.begin(), t.copies.end(),
                                [&](auto& copy) { return copy.group + pending_groups < t.copy_groups; });
  for (auto copy = t.copies.begin(); copy != arrived; ++copy) {
    if (copy->global)
      std::memcpy(copy->shared, copy->global, 16);
    else
      std::memset(copy->shared, 0, 16);
  }
  t.copies.erase(t.copies.begin(), arrived);
}

void run_grid(const Launch& launch, const std::function<void()>& thread) {
  uint64_t blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  std::string error;
  auto work = [&] {
    auto own = workers().take();
    worker = own.get();
    own->begin_grid(launch, thread);
    for (uint64_t block; own->error.empty() && (block = next++) < blocks;) own->run_block(block);
    worker = nullptr;
    if (!own->error.empty()) {
      std::lock_guard lock(mutex);
      error = std::exchange(own->error, {});
      next = blocks;
    }
    workers().give(std::move(own));
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < settings().threads && uint64_t(i) < blocks; ++i) helpers.emplace_back(work);
  work();
  for (auto& helper : helpers) helper.join();
  if (!error.empty())
    throw Error("INTERNAL", launch.kernel, "a kernel that keeps CUDA's rules", error, "mend the kernel");
}

}  // namespace ds::emulation
