// A stream: an ordered queue of commands of one device, run by a thread of its own. Enqueueing returns at once.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "error.h"
#include "memory.h"

namespace ds {

// The values cross the native boundary: keep in step with src/device.ts. cuda:n is kCuda + n.
enum class DeviceKind : uint8_t { cpu = 0, ref = 1, null = 2, cuda = 3 };

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  explicit Stream(DeviceKind device);
  ~Stream();
  Stream(const Stream&) = delete;

  DeviceKind device() const { return device_; }
  Arena& arena() { return arena_; }

  // Queues a command and returns its number; numbers grow by one. A command may throw ds::Error: the stream then
  // skips everything up to the next join, which reports that first error.
  uint64_t enqueue(std::function<void()> command);
  // Queues a command that runs even on a failed stream and may read (and clear) its error: a join.
  uint64_t enqueue_join(std::function<void(std::optional<Error>)> command);
  // Makes later commands of this stream wait until `other` has finished its command number `ticket`. A failure of
  // `other` up to there fails this stream too, so that nobody computes on what was never written.
  void wait(std::shared_ptr<Stream> other, uint64_t ticket);

  uint64_t last_ticket() const;
  // Blocks the calling thread; for tests and DS_SYNC=1 only.
  std::optional<Error> join();

 private:
  struct Command {
    std::function<void()> run;
    std::function<void(std::optional<Error>)> join;
  };
  uint64_t push(Command command);
  void work();
  std::optional<Error> wait_done(uint64_t ticket);

  DeviceKind device_;
  Arena arena_;
  mutable std::mutex mutex_;
  std::deque<Command> queue_;
  uint64_t pushed_ = 0;                 // guarded by mutex_
  std::atomic<uint32_t> arrivals_{0};   // changes with every push and at the end
  std::atomic<uint64_t> done_{0};       // number of the last finished command
  std::atomic<uint32_t> done_word_{0};  // changes with every finished command, for sleepers
  std::atomic<uint32_t> sleepers_{0};
  std::optional<Error> error_;  // guarded by mutex_
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace ds
