#include "worker.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace ds::emulation {

thread_local Worker* worker = nullptr;

void poison(void* data, size_t bytes) {
  auto* words = static_cast<volatile uint64_t*>(data);
  for (size_t i = 0; i < bytes / 8; ++i) words[i] = ~uint64_t(0);
  auto* rest = static_cast<volatile unsigned char*>(data);
  for (size_t i = bytes / 8 * 8; i < bytes; ++i) rest[i] = 0xff;
}

namespace {

constexpr size_t kStaticSharedBytes = 48 << 10;

// Allocated to the byte, so that AddressSanitizer sees the first one beyond.
SharedMemory shared_memory(size_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, 16, bytes)) throw std::bad_alloc();
  poison(data, bytes);
  return {data, &std::free};
}

std::string text(const Site& site) {
  std::string file = site.file;
  return std::string(site.what) + " at " + file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line);
}

std::string text(const Mistake& mistake) {
  std::string all = mistake.what;
  if (mistake.site.what) all += ": " + text(mistake.site);
  if (mistake.other.what) all += " and " + text(mistake.other);
  return all;
}

bool same(const Site& a, const Site& b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

uint3 index_in(uint64_t i, dim3 size) {
  return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / (uint64_t(size.x) * size.y))};
}

}  // namespace

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

// Runs the thread up to where it blocks or ends.
void Worker::run(EmulatedThread& t) {
  current = &t;
  if (!t.fiber.started())
    t.fiber.start(host_, [] {
      Worker& w = *worker;
      order_after(&w.begin_mark_);
      (*w.body_)();
      order_before(&w.end_mark_);
      w.current->state = State::done;
      w.current->fiber.finish(w.host_);
    });
  t.fiber.resume(host_);
}

// One pass over the warps: each runs until none of its threads can, so that it gets as far ahead of the others as the
// kernel lets it. Gives how many threads ran.
size_t Worker::run_ready(uint64_t block, uint64_t pass) {
  uint64_t order = settings().order;
  // The first two orders are plain; the others turn round at a place that changes from pass to pass.
  uint64_t start = order < 2 ? 0 : (order * 0x9E3779B97F4A7C15u + block * 31 + pass * 7) >> 8;
  auto turned = [&](size_t i, size_t count) {
    size_t at = (i + start) % count;
    return order & 1 ? count - 1 - at : at;
  };
  size_t ran = 0, warps = size_ / 32;
  for (size_t w = 0; w < warps; ++w) {
    EmulatedThread* lanes = &threads_[turned(w, warps) * 32];
    for (size_t before = ran + 1; before != ran;) {
      before = ran;
      for (size_t i = 0; i < 32 && !mistake_.what; ++i) {
        auto& t = lanes[turned(i, 32)];
        if (t.state != State::ready) continue;
        run(t);
        ++ran;
      }
    }
  }
  return ran;
}

void Worker::run_block(uint64_t block) {
  begin_block(block);
  order_before(&begin_mark_);
  auto all_done = [&] {
    return std::all_of(threads_.begin(), threads_.begin() + long(size_),
                       [](auto& t) { return t.state == State::done; });
  };
  mistake_ = {};
  for (uint64_t pass = 0; error.empty() && !all_done(); ++pass) {
    if (run_ready(block, pass) == 0) error = stuck();
    if (mistake_.what) error = text(mistake_);
  }
  order_after(&end_mark_);
  if (error.empty()) return;
  uint3 at = index_in(block, launch_->grid);
  error += " (block " + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
  // What still waits is given up, behind all that it did.
  for (char& mark : barrier_marks_.mark) order_after(&mark);
  for (auto& w : warps_) {
    for (char& mark : w.marks.mark) order_after(&mark);
    order_after(&w.partial_mark);
  }
  for (auto& t : threads_)
    if (t.fiber.started()) t.fiber.abandon();
}

void Worker::wait(State state, const Site& site) {
  current->site = site;
  current->state = state;
  current->fiber.suspend(host_);
}

void Worker::block_barrier(const Site& site) {
  char* mark = barrier_marks_.current();
  order_before(mark);
  if (++at_barrier_ < size_) {
    wait(State::at_block_barrier, site);
  } else {
    at_barrier_ = 0;
    barrier_marks_.second = !barrier_marks_.second;
    for (size_t i = 0; i < size_; ++i) {
      auto& t = threads_[i];
      if (&t == current) continue;
      if (!same(t.site, site)) fail({"threads that meet at different barriers", t.site, site});
      t.state = State::ready;
    }
  }
  order_after(mark);
}

void Worker::warp_barrier(unsigned mask, const Site& site) {
  if (!(mask >> current->lane & 1)) fail({"a lane that its own mask leaves out", site, {}});
  auto& w = warp();
  char* mark = mask == kAllLanes ? w.marks.current() : &w.partial_mark;
  order_before(mark);
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
    if (mask == kAllLanes) w.marks.second = !w.marks.second;
    for (unsigned lane = 0; lane < 32; ++lane) {
      auto& t = lanes[lane];
      if (!(mask >> lane & 1) || &t == current) continue;
      if (!same(t.site, site)) fail({"lanes that meet at different places", t.site, site});
      t.state = State::ready;
    }
  }
  order_after(mark);
}

void* Worker::shared(const void* site, size_t bytes) {
  order_after(&variables_);  // behind the thread that allocated it, which ThreadSanitizer takes for a write
  for (auto& v : variables_)
    if (v.site == site) return v.data.get();
  static_bytes_ += bytes;
  if (static_bytes_ > kStaticSharedBytes) fail({"more than 48 KiB of DS_SHARED", {}, {}});
  if (static_bytes_ + launch_->shared_bytes > kSharedBytes) fail({"more shared memory than the device has", {}, {}});
  variables_.push_back({site, bytes, shared_memory(bytes)});
  order_before(&variables_);
  return variables_.back().data.get();
}

void Worker::fail(const Mistake& mistake) {
  mistake_ = mistake;
  order_before(&end_mark_);
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

}  // namespace ds::emulation
