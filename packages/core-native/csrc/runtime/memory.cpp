#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace ds {

void Account::add(size_t bytes, uint16_t owner) {
  std::lock_guard lock(mutex_);
  if (live_ + bytes > limit_) throw refusal(bytes, "at most " + std::to_string(limit_) + " bytes on the device");
  live_ += bytes;
  peak_ = std::max(peak_, live_);
  auto& o = owners_[owner];
  o.live += bytes;
  o.peak = std::max(o.peak, o.live);
}

Error Account::refusal(size_t bytes, const std::string& expected) const {
  auto largest = owners_;
  std::sort(largest.begin(), largest.end(), [](auto& a, auto& b) { return a.live > b.live; });
  std::string who;
  for (size_t i = 0; i < largest.size() && i < 5 && largest[i].live; ++i)
    who += (i ? ", " : "") + largest[i].owner + " " + std::to_string(largest[i].live);
  return Error(
      "OOM", "allocate", expected, std::to_string(live_) + " in use and " + std::to_string(bytes) + " more asked for",
      "largest owners in bytes: " + who +
          "; use a smaller batch, a higher ZeRO stage, or a higher limit: `ds plan` says what each would need");
}

Error Account::out_of_memory(size_t bytes) const {
  std::lock_guard lock(mutex_);
  return refusal(bytes, "no more than the device has left");
}

void Account::remove(size_t bytes, uint16_t owner) {
  std::lock_guard lock(mutex_);
  live_ -= bytes;
  owners_[owner].live -= bytes;
}

uint16_t Account::owner_id(const std::string& name) {
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < owners_.size(); ++i)
    if (owners_[i].owner == name) return uint16_t(i);
  owners_.push_back({name, 0, 0});
  return uint16_t(owners_.size() - 1);
}

void Account::set_limit(size_t bytes) {
  std::lock_guard lock(mutex_);
  limit_ = bytes;
}

void Account::reset_peak() {
  std::lock_guard lock(mutex_);
  peak_ = live_;
  for (auto& o : owners_) o.peak = o.live;
}

size_t Account::live() const {
  std::lock_guard lock(mutex_);
  return live_;
}

size_t Account::peak() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

std::vector<OwnerBytes> Account::owners() const {
  std::lock_guard lock(mutex_);
  return owners_;
}

HostSpace::HostSpace() {
  // Address space only: twice the machine's memory, so that no order of sizes can run into the end first.
  bytes_ = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGE_SIZE)) * 2;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (p == MAP_FAILED)
    throw Error("OOM", "reserve", std::to_string(bytes_) + " bytes of address space", "a refusal by the system",
                "raise the limit on virtual memory (ulimit -v)");
  base_ = static_cast<char*>(p);
#ifdef MADV_HUGEPAGE
  madvise(base_, bytes_, MADV_HUGEPAGE);
#endif
}

HostSpace::~HostSpace() { munmap(base_, bytes_); }

void HostSpace::give_back(size_t offset, size_t bytes) {
  size_t page = size_t(sysconf(_SC_PAGE_SIZE));
  size_t begin = (offset + page - 1) / page * page, end = (offset + bytes) / page * page;
  if (begin < end) madvise(base_ + begin, end - begin, MADV_DONTNEED);
}

void* Region::allocate(size_t bytes) {
  size_t offset = take(bytes);
  try {
    space_->touch(offset, bytes);
  } catch (...) {
    free(space_->base() + offset, bytes);
    throw;
  }
  return space_->base() + offset;
}

size_t Region::take(size_t bytes) {
  for (auto block = free_.begin(); block != free_.end(); ++block) {
    if (block->second < bytes) continue;
    auto [offset, size] = *block;
    free_.erase(block);
    if (size > bytes) free_.emplace(offset + bytes, size - bytes);
    return offset;
  }
  size_t offset = high_water_;
  // A free block that touches the end grows instead of leaving a hole behind it.
  auto last = free_.empty() ? free_.end() : std::prev(free_.end());
  if (last != free_.end() && last->first + last->second == high_water_) offset = last->first;
  if (bytes > space_->bytes() - offset)
    throw Error("OOM", "allocate",
                "a block that fits into " + std::to_string(space_->bytes()) + " bytes of address space",
                std::to_string(bytes) + " bytes", "use a smaller batch or a higher ZeRO stage");
  if (offset != high_water_) free_.erase(last);
  high_water_ = offset + bytes;
  return offset;
}

void Region::free(void* data, size_t bytes) {
  size_t offset = size_t(static_cast<char*>(data) - space_->base());
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && offset + bytes == next->first) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      previous->second += bytes;
      return;
    }
  }
  free_.emplace(offset, bytes);
}

void Region::trim() {
  for (auto [offset, bytes] : free_)  // nobody is behind the last one
    space_->give_back(offset, (offset + bytes == high_water_ ? space_->bytes() : offset + bytes) - offset);
}

}  // namespace ds
