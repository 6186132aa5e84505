// The shared memory of a job on one host: who takes part, the one failure that ends them all, and room for the control
// words and staging slots of every communicator (the world's and those split from it).
//
// It has no name in any file system: a memfd that children inherit or ranks pass by socket (rendezvous.h). So it is
// gone with the last process, however that ends. It is sparse: pages that nobody touched cost nothing.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include "../runtime/error.h"
#include "call.h"
#include "process.h"

namespace ds {

constexpr int kMaxRanks = 256;  // of one host

// A value that one process writes and others may read at any moment. Readers may see a mixture of two values; those
// that must not, wait for a word that the writer changes afterwards.
template <class T>
class Published {
  static_assert(sizeof(T) % 8 == 0 && std::is_trivially_copyable_v<T>);

 public:
  void store(const T& value) {
    uint64_t words[kWords];
    std::memcpy(words, &value, sizeof value);
    for (size_t i = 0; i < kWords; ++i) words_[i].store(words[i], std::memory_order_relaxed);
  }
  T load() const {
    uint64_t words[kWords];
    for (size_t i = 0; i < kWords; ++i) words[i] = words_[i].load(std::memory_order_relaxed);
    T value;
    std::memcpy(static_cast<void*>(&value), words, sizeof value);
    return value;
  }

 private:
  static constexpr size_t kWords = sizeof(T) / 8;
  std::atomic<uint64_t> words_[kWords];
};

struct FailureText {
  char code[16], op[128], expected[256], actual[16 * 1024], hint[512];
};

// One rank's part of a communicator: written by that rank alone.
struct alignas(64) Member {
  static constexpr int kHistory = 64, kAhead = 32;
  std::atomic<uint32_t> round;  // rounds it has arrived at
  std::atomic<uint32_t> left;
  std::atomic<uint32_t> can_read;          // it can read the memory of every other member
  std::atomic<uint32_t> has_room;          // it may use as many cores as there are ranks
  std::atomic<uint64_t> issued, finished;  // numbers of calls
  std::atomic<uint64_t> changed_ms;        // steady clock, when `issued` or `finished` last changed
  std::atomic<uint32_t> world_rank;
  Published<Call> header[2];  // of collective number s in header[s % 2]
  // Of a back end that queues its calls instead of meeting for each:
  std::atomic<uint64_t> queued;       // collectives
  std::atomic<uint64_t> arrived;      // collectives that its device has come to
  Published<Call> ahead[kAhead];      // collective number s in ahead[s % kAhead]
  Published<Call> history[kHistory];  // call number i in history[i % kHistory]
};

// Messages from one rank to another. The sender writes `sent` and `call`, the receiver `taken`.
struct alignas(64) Pair {
  std::atomic<uint32_t> sent;  // steps offered
  std::atomic<uint32_t> sent_sleepers;
  std::atomic<uint32_t> taken;  // steps taken
  std::atomic<uint32_t> taken_sleepers;
  Published<Call> call;
  // Of a back end that queues its calls: message number s, of which `sent` and `taken` were queued, in [s % kAhead].
  static constexpr int kAhead = 4;
  Published<Call> sends[kAhead], receives[kAhead];
};

// The words by which a whole communicator meets. The last one to arrive at a round opens it.
struct Gate {
  alignas(64) std::atomic<uint64_t> arrivals;
  alignas(64) std::atomic<uint32_t> generation;
  std::atomic<uint32_t> sleepers;
};

class Segment {
 public:
  // Staging of one slot; chunks of data are at most this large.
  static constexpr size_t kSlotBytes = 512 * 1024;

  // Makes the memory for `world` ranks and gives its file descriptor (close-on-exec).
  static int create(int world);
  // Maps it. The descriptor may be closed afterwards.
  static std::shared_ptr<Segment> map(int fd);
  // For a group of one: memory of this process alone.
  static std::shared_ptr<Segment> alone();
  ~Segment();

  int world() const;
  // Takes a place in the world. Throws COMM when somebody else has it.
  void take_place(int rank, const ProcessId& process);
  ProcessId process(int world_rank) const;

  // Room for communicators. The world's is number 0. Memory of fresh room reads as zero.
  int take_room(int members);  // -1: none left
  void leave_room(int room);   // the last member gives it back
  Gate& gate(int room) const;
  Member& member(int room, int rank) const;
  Pair& pair(int room, int from, int to) const;
  // Two slots (0, 1) of every rank for collectives, two more (2, 3) for its outgoing messages.
  char* slot(int room, int rank, int index) const;

  // Records why the job ends. The first one counts; it is given back, and known to every rank.
  Error fail(const Error& error);
  bool failed() const;
  Error failure() const;

 private:
  struct Header;
  Segment(char* base, size_t bytes) : base_(base), bytes_(bytes) {}
  Header& header() const;
  char* room(int index) const;

  char* base_;
  size_t bytes_;
};

}  // namespace ds
