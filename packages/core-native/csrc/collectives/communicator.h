// A group of ranks that move tensors between them: the one interface of every back end (shared memory, NCCL, null;
// later MPI).
//
// One thread of a process issues calls (`prepare`: checks, counts, takes a number), streams run them. The calls of one
// communicator run in the order of their numbers, whatever streams they were put on, so all ranks that issue the same
// calls in the same order agree. A call that a failed stream skips fails the whole group at once: nobody waits in vain.
//
// Primitives, N ranks, n elements of the full tensor (`count`); slice r is elements [r n/N, (r+1) n/N):
//   all_reduce      out[n] = scale * sum over ranks of in[n]; out may be in, or wider (bf16, f16 -> f32)
//   reduce_scatter  out[n/N] = slice `rank` of scale * sum of in[n]; out may be that slice of in, or wider;
//                   accumulate: added to what out holds
//   all_gather      out[n] = the in[n/N] of every rank, in order of ranks; in may be slice `rank` of out
//   broadcast       out[n] of every rank = that of rank `peer`
//   all_to_all      slice r of out[n] = slice `rank` of rank r's in[n]; out and in apart
//   send, recv      in[n] of one rank to out[n] of rank `peer`; over when it is there (NCCL: when `in` may change)
//   barrier         nothing moves
// Sums are those of kernels/reduce/sum_ranks.h: f32, from rank 0 up, bitwise the same on every rank.
#pragma once
#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "../runtime/tensor.h"
#include "call.h"

namespace ds {

class CudaStream;
class Membership;

struct Collective {
  Primitive primitive = Primitive::barrier;
  CudaStream* cuda = nullptr;  // of tensors that lie on a GPU: the stream that the call is queued on
  Tensor out, in;
  int peer = -1;
  double scale = 1;
  bool accumulate = false;
  std::string tag;
};

// The header of the call, without its numbers.
Call call_of(const Collective& op);

// What a rank sent, by the formula of a ring: all_reduce 2 (N-1)/N n, reduce_scatter, all_gather and all_to_all
// (N-1)/N n, broadcast n on its root, send n. In N-ths, so that it is exact for every n. An all_reduce into a wider
// dtype sends half its elements in either.
struct Traffic {
  uint64_t calls = 0, elements_times_ranks = 0, bytes_times_ranks = 0;

  Traffic& operator+=(const Traffic& other) {
    calls += other.calls;
    elements_times_ranks += other.elements_times_ranks;
    bytes_times_ranks += other.bytes_times_ranks;
    return *this;
  }
};

class Communicator : public std::enable_shared_from_this<Communicator> {
 public:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Counts a call and gives the job that a stream has to run. Throws SHAPE where memory would be at risk.
  std::function<void()> prepare(Collective op);
  // Counts a call that moves nothing: tensors of the null device.
  void count(const Collective& op);
  // A job that leaves the group in its turn.
  std::function<void()> prepare_leave();

  // Ends every wait of every rank with an error, at once and for good.
  virtual void abort(const std::string& reason) = 0;
  // Tells the others that this rank is gone, and ends its own waits. For the end of the environment.
  virtual void leave() = 0;
  // How bytes travel, for people: "shared memory, single copy".
  virtual std::string transport() const = 0;
  // Every rank's last finished and pending call, for people.
  virtual std::string flight_record() const = 0;

  const Traffic& traffic(Primitive p) const { return traffic_[int(p)]; }
  void reset_traffic() { traffic_ = {}; }

 protected:
  virtual void run(const Collective& op) = 0;
  // Leaves once its calls are over.
  virtual void retire() { leave(); }
  // A numbered call will never run.
  virtual void skipped(const std::string& what) = 0;
  std::function<void()> in_turn(std::string what, std::function<void()> job);

  int rank_, size_;

 private:
  struct Turn;

  std::array<Traffic, kPrimitives> traffic_{};
  uint64_t next_number_ = 0;
  uint64_t turn_ = 0;  // guarded by mutex_: the number whose job may run
  std::mutex mutex_;
  std::condition_variable turned_;
};

// Of tensors on the host: the ranks of a group find each other by it.
class HostCommunicator : public Communicator {
 public:
  using Communicator::Communicator;
  // A job that waits until all ranks are there.
  std::function<void()> prepare_connect();
  // A job that cuts the group by color (< 0: no part of any) and orders each part by (key, rank).
  std::function<void()> prepare_split(int color, int key, std::shared_ptr<HostCommunicator>* part);
  // The words that the ranks share; null where there are no other ranks to share with.
  virtual std::shared_ptr<Membership> members() const = 0;

 protected:
  virtual void connect() = 0;
  virtual std::shared_ptr<HostCommunicator> split(int color, int key) = 0;
};

// Knows sizes only: counts what a rank of `size` would send. For plans.
class NullCommunicator : public HostCommunicator {
 public:
  using HostCommunicator::HostCommunicator;
  void abort(const std::string&) override {}
  void leave() override {}
  std::string transport() const override { return "null"; }
  std::string flight_record() const override { return ""; }
  std::shared_ptr<Membership> members() const override { return nullptr; }

 protected:
  void connect() override {}
  void run(const Collective& op) override;
  std::shared_ptr<HostCommunicator> split(int color, int key) override;
  void skipped(const std::string&) override {}
};

}  // namespace ds
