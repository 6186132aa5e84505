// Shared-memory collectives that read straight out of the other ranks' memory.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "../kernels/reduce/sum_ranks.h"
#include "shm.h"

namespace ds {
namespace {

// A rank that would have to read more than this from the slots reads from its peers' memory instead: then two rounds
// and one copy are cheaper than one round and two copies. all_reduce needs three rounds.
constexpr uint64_t kPullBytes = 128 * 1024, kPullAllReduceBytes = 1024 * 1024;
// What is read before it is summed must still be in the second-level cache.
constexpr int64_t kScratchBytes = 256 * 1024;
// Results beyond this are written past the caches, when nobody reads them next.
constexpr int64_t kStreamBytes = 8 << 20;
// all_reduce proceeds in blocks. What does not fit into any cache goes in small ones, so that sums are copied while
// they are in one, if the ranks can keep pace with each other.
constexpr int64_t kBlockBytes = 8 << 20, kSmallBlockBytes = 256 << 10, kUncachedBytes = 64 << 20;

// The calling thread's scratch memory, page-aligned.
char* scratch() {
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  thread_local std::unique_ptr<char, Free> memory(static_cast<char*>(std::aligned_alloc(4096, kScratchBytes)));
  return memory.get();
}

// A plain copy reads every line that it is about to overwrite; this one goes past the caches.
void stream_copy(char* to, const char* from, size_t bytes) {
#if defined(__x86_64__)
  if (reinterpret_cast<uintptr_t>(to) % 16 == 0) {
    size_t whole = bytes / 64 * 64;
    for (size_t i = 0; i < whole; i += 64)
      for (size_t j = 0; j < 64; j += 16)
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + j),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + j)));
    _mm_sfence();
    to += whole, from += whole, bytes -= whole;
  }
#endif
  std::memcpy(to, from, bytes);
}

void copy_own(char* to, const char* from, size_t bytes) {
  if (to == from || bytes == 0) return;
  bytes > size_t(kStreamBytes) ? stream_copy(to, from, bytes) : void(std::memcpy(to, from, bytes));
}

}  // namespace

bool ShmCommunicator::pulls(const Call& call) const {
  if (size_ == 1) return true;
  const uint64_t others = uint64_t(size_ - 1);
  if (ways_ != 2) return false;
  if (call.primitive == Primitive::all_reduce) return call.bytes * others > kPullAllReduceBytes;
  if (call.primitive == Primitive::broadcast || is_pairwise(call.primitive)) return call.bytes > kPullBytes;
  return call.bytes / uint64_t(size_) * others > kPullBytes;
}

void ShmCommunicator::pull(int rank, void* to, uint64_t address, size_t bytes) {
  int error = read_memory(members_->process_of(rank).pid, to, address, bytes);
  if (error == 0) return;
  if (error == ESRCH || !is_alive(members_->process_of(rank)))
    throw Error("COMM", short_name(current_), "every rank to be alive", members_->name_of(rank) + " that has ended",
                "its own output tells why; killed by signal 9 is mostly the system out of memory");
  throw Error("COMM", short_name(current_), "memory of " + members_->name_of(rank) + " that can be read",
              std::string("the error ") + std::strerror(error), "try transport staged");
}

// Reads a part of a tensor of `whole` bytes. The system's copy reads every line that it overwrites;
// what fits into no cache goes through a small one, and past it.
void ShmCommunicator::fetch(int rank, char* to, uint64_t address, size_t bytes, int64_t whole) {
  if (whole <= kUncachedBytes) return pull(rank, to, address, bytes);
  for (size_t done = 0; done < bytes; done += size_t(kScratchBytes)) {
    size_t n = std::min(size_t(kScratchBytes), bytes - done);
    pull(rank, scratch(), address + done, n);
    stream_copy(to + done, scratch(), n);
  }
}

// out[0, n) = the sum of elements [from, from + n) of every rank's `in`.
void ShmCommunicator::pull_and_sum(const Collective& op, int64_t from, int64_t n, void* out) {
  const int64_t in_size = int64_t(dtype_bytes(op.in.dtype)), out_size = int64_t(dtype_bytes(op.out.dtype));
  const int64_t others = std::max(size_ - 1, 1), step = kScratchBytes / others / 64 * 64;
  const bool stream = n * out_size > kStreamBytes && out != op.in.as<char>() + from * in_size;
  for (int64_t begin = 0; begin < n; begin += step / in_size) {
    int64_t length = std::min(step / in_size, n - begin), offset = (from + begin) * in_size;
    char* to = scratch();
    for (int q = 0; q < size_; ++q) {
      if (q == rank_) {
        sources_[size_t(q)] = op.in.as<char>() + offset;
        continue;
      }
      pull(q, to, headers_[size_t(q)].address + uint64_t(offset), size_t(length * in_size));
      sources_[size_t(q)] = to;
      to += step;
    }
    sum(op, static_cast<char*>(out) + begin * out_size, length, stream);
  }
}

void ShmCommunicator::pulled_all_reduce(const Collective& op) {
  const int64_t in_size = int64_t(dtype_bytes(op.in.dtype)), out_size = int64_t(dtype_bytes(op.out.dtype));
  const int64_t n = op.in.numel();
  const bool small = n * in_size > kUncachedBytes && !crowded_;
  const int64_t block = (small ? size_ * kSmallBlockBytes : kBlockBytes) / in_size;
  char* out = op.out.as<char>();
  open();
  for (int64_t b = 0; b < n; b += block) {
    int64_t length = std::min(block, n - b);
    // Slices begin at whole cache lines.
    auto bound = [&](int q) { return b + (q == size_ ? length : length * q / size_ / 64 * 64); };
    pull_and_sum(op, bound(rank_), bound(rank_ + 1) - bound(rank_), out + bound(rank_) * out_size);
    meet();  // all have read our input here, and the sums are ready
    for (int i = 1; i < size_; ++i) {
      int q = (rank_ + i) % size_;
      pull(q, out + bound(q) * out_size, headers_[size_t(q)].out_address + uint64_t(bound(q) * out_size),
           size_t((bound(q + 1) - bound(q)) * out_size));
    }
  }
  meet();
}

void ShmCommunicator::move_pulled(const Collective& op) {
  switch (op.primitive) {
    case Primitive::all_reduce:
      return pulled_all_reduce(op);
    case Primitive::reduce_scatter:
      open();
      pull_and_sum(op, rank_ * op.out.numel(), op.out.numel(), op.out.data);
      return meet();
    case Primitive::broadcast:
      open();
      if (rank_ != op.peer)
        pull(op.peer, op.out.data, headers_[size_t(op.peer)].address,
             size_t(op.out.numel()) * dtype_bytes(op.out.dtype));
      return meet();
    case Primitive::all_gather:
    case Primitive::exchange:
    case Primitive::all_to_all:
      return pulled_exchange(op);
    default:
      return open();
  }
}

// all_gather takes the whole `in` of each rank, all_to_all our slice of it.
void ShmCommunicator::pulled_exchange(const Collective& op) {
  size_t bytes = size_t(op.out.numel() / size_) * dtype_bytes(op.out.dtype);
  size_t offset = op.primitive == Primitive::all_to_all ? size_t(rank_) * bytes : 0;
  char* out = op.out.as<char>();
  // Nobody reads or waits for what stays here.
  open([&] { copy_own(out + size_t(rank_) * bytes, op.in.as<char>() + offset, bytes); });
  for (int i = 1; i < size_; ++i) {
    int q = (rank_ + i) % size_;
    fetch(q, out + size_t(q) * bytes, headers_[size_t(q)].address + offset, bytes, int64_t(bytes) * size_);
  }
  meet();
}

}  // namespace ds
