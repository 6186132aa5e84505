// What kernels call, and the grid as a whole. Compiled without ThreadSanitizer, as worker.cpp is: to it, only what
// kernels do is of interest.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../runtime/error.h"
#include "worker.h"

namespace ds::emulation {
namespace {

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
