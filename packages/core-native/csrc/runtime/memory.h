// Memory of a device: stream-ordered arenas, bytes accounted by owner, a hard limit.
//
// Each stream has an arena of its own. A block that is freed may be handed out again at once, although kernels that
// use it are still queued: the next user is queued on the same stream, behind them. (A tensor used on a second stream
// must outlive an event of that stream; the ZeRO engine's slots do.) So the place and the peak of every allocation
// depend on the order of calls alone, never on timing, and a plan can predict them to the byte.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "error.h"

namespace ds {

// Blocks are multiples of this: a cache line pair, and the alignment that AVX-512 and CUDA like.
constexpr size_t kBlockBytes = 256;

constexpr size_t block_bytes(size_t bytes) { return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes; }

struct OwnerBytes {
  std::string owner;
  size_t live = 0, peak = 0;
};

// The account of one device: what is allocated, by whom, and the most there ever was.
class Account {
 public:
  // Throws OOM, naming the five largest owners, when `bytes` more would pass the limit.
  void add(size_t bytes, uint16_t owner);
  void remove(size_t bytes, uint16_t owner);
  uint16_t owner_id(const std::string& name);
  void set_limit(size_t bytes);
  // What to say when the device itself has no more: like the refusal of `add`.
  Error out_of_memory(size_t bytes) const;
  void reset_peak();
  size_t live() const;
  size_t peak() const;
  std::vector<OwnerBytes> owners() const;

 private:
  Error refusal(size_t bytes, const std::string& expected) const;

  mutable std::mutex mutex_;
  std::vector<OwnerBytes> owners_;
  size_t live_ = 0, peak_ = 0, limit_ = SIZE_MAX;
};

// A reservation of address space of a device.
class AddressSpace {
 public:
  virtual ~AddressSpace() = default;
  char* base() const { return base_; }
  size_t bytes() const { return bytes_; }
  // Makes a range usable; throws OOM. Gives back what lies wholly inside a range and nobody uses.
  virtual void touch(size_t offset, size_t bytes) = 0;
  virtual void give_back(size_t offset, size_t bytes) = 0;

 protected:
  char* base_ = nullptr;
  size_t bytes_ = 0;
};

// The host's: pages come by use.
class HostSpace : public AddressSpace {
 public:
  HostSpace();
  ~HostSpace() override;
  void touch(size_t, size_t) override {}
  void give_back(size_t offset, size_t bytes) override;
};

// One linear reservation; blocks are taken first-fit from the low end, so the resident part stays as small as the
// peak. `trim` gives what is free back.
class Region {
 public:
  explicit Region(std::unique_ptr<AddressSpace> space) : space_(std::move(space)) {}
  Region(const Region&) = delete;
  void* allocate(size_t bytes);  // bytes: a multiple of kBlockBytes, > 0
  void free(void* data, size_t bytes);
  void trim();

 private:
  size_t take(size_t bytes);

  std::unique_ptr<AddressSpace> space_;
  size_t high_water_ = 0;
  std::map<size_t, size_t> free_;  // offset -> bytes, coalesced, below high_water_
};

// Blocks smaller than a huge page live in a region of their own. Otherwise what is saved for backward would sit in the
// place of a gathered embedding that was released, and the next one would find room at the end only.
class Arena {
 public:
  Arena(std::unique_ptr<AddressSpace> small, std::unique_ptr<AddressSpace> large)
      : small_(std::move(small)), large_(std::move(large)) {}
  static Arena on_host() { return Arena(std::make_unique<HostSpace>(), std::make_unique<HostSpace>()); }
  void* allocate(size_t bytes) { return region(bytes).allocate(bytes); }
  void free(void* data, size_t bytes) { region(bytes).free(data, bytes); }
  void trim() { small_.trim(), large_.trim(); }

 private:
  static constexpr size_t kLargeBytes = 2 << 20;
  Region& region(size_t bytes) { return bytes < kLargeBytes ? small_ : large_; }
  Region small_, large_;
};

}  // namespace ds
