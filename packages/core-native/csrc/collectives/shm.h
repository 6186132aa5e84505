// Collectives between the processes of one host.
//
// Everything is made of rounds: at a round each rank publishes what it has, arrives at the gate, and goes on once all
// have arrived. The first round of a collective carries the headers, which all ranks compare before any data moves; so
// ranks are never more than one round apart, two buffers for whatever a round publishes are enough, and every rank
// comes to the same verdict about a mismatch.
//
// Data travels in one of two ways, chosen by the same rule on every rank:
//   staged (shm_staged.cpp)  through the shared slots, chunk by chunk. For small tensors, where it costs one round in
//                            all, and wherever the system forbids the other way.
//   pulled (shm_pulled.cpp)  each rank reads straight out of the others' memory (process_vm_readv): one copy instead of
//                            two, no steps to keep pace with. A last round tells that all have read.
// Messages between two ranks (shm_message.cpp) have counters of their own for each pair and direction.
//
// A wait spins for microseconds, then sleeps, and looks every 100 ms whether the group has failed, a peer has died,
// left or is waiting for something else, or the time is up. Whoever finds out first fails the group for everybody.
#pragma once
#include <array>
#include <atomic>
#include <vector>

#include "communicator.h"
#include "membership.h"

namespace ds {

enum class Transport : uint8_t { automatic = 0, pulled = 1, staged = 2 };

struct ShmOptions {
  int64_t timeout_ms = 600000;
  size_t chunk_bytes = Segment::kSlotBytes;  // of staged data; same on all ranks
  Transport transport = Transport::automatic;
  int64_t jitter_us = 0;  // a random wait up to this before every call: shakes out what depends on timing
};

class ShmCommunicator : public HostCommunicator {
 public:
  // Takes place `rank` of the world. Returns at once; the first call waits for the others.
  static std::shared_ptr<ShmCommunicator> attach(std::shared_ptr<Segment> segment, int rank, const ShmOptions& options);
  ~ShmCommunicator() override;

  void abort(const std::string& reason) override;
  void leave() override;
  std::string transport() const override;
  std::string flight_record() const override { return members_->flight_record(); }
  std::shared_ptr<Membership> members() const override { return members_; }

 protected:
  void connect() override;
  void run(const Collective& op) override;
  std::shared_ptr<HostCommunicator> split(int color, int key) override;
  void skipped(const std::string& what) override;

 private:
  ShmCommunicator(std::shared_ptr<Segment> segment, int room, int rank, std::vector<int> world_ranks,
                  const ShmOptions& options);

  // Meeting (shm.cpp)
  void hello();
  void run_call(Call call, const std::function<void()>& move);
  bool arrive();  // first half of a round; true when this rank was the last
  void meet();    // one round
  void await_round();
  // The first round of a collective: compares headers, keeps them in headers_. `meanwhile` runs while others arrive.
  void open(const std::function<void()>& meanwhile = nullptr);
  void round();  // open() the first time, meet() afterwards
  template <class Ready, class Missing>
  void await(std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers, Ready ready, Missing missing);
  void await_pair(std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers, uint32_t steps, int peer);
  static void announce(std::atomic<uint32_t>& word, uint32_t value, std::atomic<uint32_t>& sleepers);

  // Watching (shm_watch.cpp)
  void look(int64_t waited_ms, const std::function<bool(int)>& missing);
  void look_at(int peer, const std::function<bool(int)>& missing);

  // Moving (shm_staged.cpp, shm_pulled.cpp, shm_message.cpp)
  bool pulls(const Call& call) const;
  void move_staged(const Collective& op);
  void staged_all_reduce(const Collective& op);
  void staged_reduce_scatter(const Collective& op);
  void staged_all_gather(const Collective& op);
  void staged_broadcast(const Collective& op);
  void staged_all_to_all(const Collective& op);
  template <class Put, class Take>
  void steps(int64_t count, Put put, Take take);
  char* slot(int rank) const { return members_->slot(rank, int(data_rounds_ & 1)); }

  void move_pulled(const Collective& op);
  void pulled_all_reduce(const Collective& op);
  void pulled_exchange(const Collective& op);
  void pull_and_sum(const Collective& op, int64_t from, int64_t n, void* out);
  void pull(int rank, void* to, uint64_t address, size_t bytes);
  void fetch(int rank, char* to, uint64_t address, size_t bytes, int64_t whole);
  void sum(const Collective& op, void* out, int64_t n, bool stream);

  void send(const Collective& op);
  void receive(const Collective& op);

  Segment& segment() const { return *members_->segment(); }
  Member& member(int rank) const { return members_->member(rank); }
  Member& me() const { return members_->me(); }

  const std::shared_ptr<Membership> members_;
  const ShmOptions options_;
  std::atomic<bool> leaving_{false};
  std::atomic<int> ways_{0};  // 0 not met yet, 1 staged only, 2 pulled too

  // Used by the thread whose turn it is.
  uint64_t rounds_ = 0, data_rounds_ = 0, calls_ = 0, collectives_ = 0;
  Call current_;
  bool opened_ = false, crowded_ = false;
  std::vector<Call> headers_;
  std::array<const void*, kMaxRanks> sources_{};
  std::vector<uint32_t> sent_, taken_;      // steps, by peer
  std::vector<uint64_t> sends_, receives_;  // messages, by peer
  uint64_t probe_ = 0, random_ = 0, waits_ = 0, failed_spins_ = 0;
};

template <class Put, class Take>
void ShmCommunicator::steps(int64_t count, Put put, Take take) {
  for (int64_t s = 0; s < count; ++s) {
    put(s);
    round();
    take(s);
    ++data_rounds_;
  }
  if (count == 0) round();
}

}  // namespace ds
