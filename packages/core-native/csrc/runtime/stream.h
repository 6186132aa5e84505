// A stream: an ordered queue of commands of one device, run by a thread of its own. Enqueueing returns at once.
//
// On a CUDA device the thread only queues the commands' work on a stream of the device: a command that is done there
// may not have happened yet. Joins and waits know the difference.
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

#include "cuda_stream.h"
#include "error.h"
#include "memory.h"

namespace ds {

// The values cross the native boundary: keep in step with src/device.ts. cuda:n is kCuda + n.
enum class DeviceKind : uint8_t { cpu = 0, ref = 1, null = 2, cuda = 3 };

constexpr int kDevices = int(DeviceKind::cuda) + kMaxCudaDevices;

inline DeviceKind kind_of(int device) { return DeviceKind(device < int(DeviceKind::cuda) ? device : 3); }
inline int cuda_number(int device) { return device - int(DeviceKind::cuda); }

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  // `device`: its number, cuda:n being kCuda + n. `account`: the device's; it outlives the stream.
  Stream(int device, Account& account);
  ~Stream();
  Stream(const Stream&) = delete;

  int device() const { return device_; }
  DeviceKind kind() const { return kind_of(device_); }
  Arena& arena() { return arena_; }
  CudaStream* cuda() const { return cuda_.get(); }  // on a CUDA device; for commands

  // Queues a command and returns its number; numbers grow by one. A command may throw ds::Error: the stream then
  // skips everything up to the next join, which reports that first error.
  uint64_t enqueue(std::function<void()> command);
  // Queues a command that runs even on a failed stream and may read (and clear) its error: a join.
  uint64_t enqueue_join(std::function<void(std::optional<Error>)> command);
  // Marks everything queued so far; gives the number to wait for.
  uint64_t record();
  // Makes later commands of this stream wait until `other` has finished its command number `ticket`. A failure of
  // `other` up to there fails this stream too, so that nobody computes on what was never written.
  void wait(std::shared_ptr<Stream> other, uint64_t ticket);

  // Gives the arena's free memory back, on a CUDA device once nothing queued uses it any more.
  void trim();
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
  uint64_t last_ticket() const;

  int device_;
  Arena arena_;
  std::unique_ptr<CudaStream> cuda_;
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
