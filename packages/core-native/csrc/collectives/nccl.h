// Collectives between GPUs through NCCL.
//
// The ranks stay in touch through shared memory: a room of the job's segment (segment.h), a copy of their host group's,
// holds every rank's record, so that NCCL carries the bytes and nothing else. A call is queued on its CUDA stream by
// the stream's thread, which does not wait for the others; they may queue up to 32 calls ahead of the slowest rank.
// Before a rank queues a call it publishes its header and compares those that are there: of two ranks whose calls
// differ at least one sees it, and does not queue its half.
//
// Sums are those of kernels/reduce/sum_ranks.h, as everywhere: slices travel as they are, and a kernel of ours adds
// them up. NCCL's own sums, whose order is NCCL's and which round to the tensor's dtype at every step, are there as a
// faster variant for who asks for it (`NcclSums::unordered`). docs/decisions/2026-11-nccl-exact-sums.md says more.
//
// A watcher (nccl_watch.h) looks after the calls that are on their way: when one does not end, a rank dies or NCCL
// reports an error, it fails the job in shared memory, every rank's watcher aborts its NCCL communicator, and the next
// join of a stream that builds on it tells why.
#pragma once
#include <array>
#include <atomic>
#include <deque>
#include <optional>

#include "../runtime/cuda_stream.h"
#include "communicator.h"
#include "membership.h"
#include "nccl_library.h"

namespace ds {

enum class NcclSums : uint8_t { exact = 0, unordered = 1 };

struct NcclOptions {
  int64_t timeout_ms = 600000;
  NcclSums sums = NcclSums::exact;
  // NCCL also for a group of one, which needs none.
  bool always = false;
};

class NcclCommunicator : public Communicator {
 public:
  // For tensors of cuda:`device` in a group that has `host` for those of the host.
  static std::shared_ptr<NcclCommunicator> create(const HostCommunicator& host, int device, const NcclOptions& options);
  ~NcclCommunicator() override;

  // The first job, on a stream of the device: takes a turn of the host group, meets its ranks and opens NCCL.
  std::function<void()> prepare_open(HostCommunicator& host, CudaStream* stream);
  int device() const { return device_; }

  void abort(const std::string& reason) override;
  void leave() override;
  std::string transport() const override;
  std::string flight_record() const override;

 protected:
  void run(const Collective& op) override;
  void retire() override;
  void skipped(const std::string& what) override;

 private:
  friend class NcclWatcher;
  NcclCommunicator(int rank, int size, int device, const NcclOptions& options)
      : Communicator(rank, size), device_(device), options_(options) {}

  // Opening and calling (nccl.cpp)
  void open(std::shared_ptr<HostCommunicator> host, CudaStream& stream);
  void set_transport();
  NcclId share_id();
  void number(Call& call);
  void enter_collective(const Call& call);
  void enter_message(const Call& call);
  Error mismatch(const Call& call) const;
  // Waits until no other rank `q` is missing; or until ready() is true, with an eye on what may keep the missing ranks.
  void await(const Call& call, const std::function<bool(int)>& missing);
  void await(const Call& call, const std::function<bool()>& ready, const std::function<bool(int)>& missing);
  void await_room();
  void track(const Call& call, CudaStream& stream, std::shared_ptr<CudaEvent> started);
  Segment& segment() const { return *members_->segment(); }
  void throw_if_over() const;
  // Why a peer will never come; nothing when it may.
  std::optional<Error> never_comes(int peer, const Call& call) const;

  // NCCL's functions on the communicator, which the watcher may end at any moment. Throws what went wrong, and waits
  // for what NCCL does in the background.
  void nccl(const std::function<NcclResult(const NcclFunctions&, NcclComm*)>& function);
  void settle(NcclResult result);
  bool has_nccl() const { return size_ > 1 || options_.always; }
  Error nccl_error(NcclResult result, const std::string& op) const;

  // Moving (nccl_moves.cpp)
  void move(const Collective& op);
  void exact_all_reduce(const Collective& op);
  void exact_reduce_scatter(const Collective& op);
  void unordered_all_reduce(const Collective& op);
  void unordered_reduce_scatter(const Collective& op);
  void all_gather(CudaStream& stream, const void* in, void* out, size_t bytes);
  void all_to_all(const Collective& op);
  // Piece q of `from` goes to rank q, whose piece comes to place q of `to`; our own piece stays.
  struct Exchange {
    const char* from;
    size_t from_stride, bytes;
    char* to;
    size_t to_stride;
  };
  void exchange(CudaStream& stream, std::initializer_list<Exchange> parts);
  void sum(const Collective& op, const std::vector<const void*>& sources, void* out, int64_t n, bool accumulate);

  // Watching (nccl_watch.cpp), by the watcher's thread
  bool watch(int64_t now);  // false when there is nothing left to do
  void watch_calls(int64_t now);
  void look_at_peers(const Call& call);
  void look_at_nccl();
  void give_up(const Error& why);
  bool others_have_left() const;

  struct InFlight {
    Call call;
    std::shared_ptr<CudaEvent> started, done;
    int64_t began_ms = -1;  // when it was seen to have started
  };

  const int device_;
  const NcclOptions options_;
  std::shared_ptr<HostCommunicator> host_;         // a copy of the group, for its room; set by open()
  std::shared_ptr<Membership> members_;            // of that room
  std::atomic<bool> met_{false}, leaving_{false};  // met: host_ and members_ are set
  const std::shared_ptr<Outcome> outcome_ = std::make_shared<Outcome>();

  // The handle: null before it is open and once it is given up. Held shortly: never while NCCL waits for others.
  mutable std::mutex comm_mutex_;
  NcclComm* comm_ = nullptr;
  std::string transport_ = "NCCL, not met yet";  // guarded by comm_mutex_

  // Used by the thread whose turn it is.
  uint64_t calls_ = 0, collectives_ = 0;
  Call current_;
  std::vector<uint64_t> sends_, receives_;  // messages queued, by peer
  std::shared_ptr<CudaEvent> last_done_;
  CudaStream* last_stream_ = nullptr;

  mutable std::mutex flight_mutex_;
  std::deque<InFlight> in_flight_;
  std::optional<Error> given_up_;  // what is queued from then on will not happen either
  // Used by the watcher.
  std::vector<uint64_t> sent_, received_;  // messages that are over, by peer
  uint64_t over_ = 0;                      // the last collective that is over
  int64_t looked_ms_ = 0, left_ms_ = 0;
  uint64_t suspicions_ = 0;  // in a row: something looks wrong that may pass
};

}  // namespace ds
