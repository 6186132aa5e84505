// One rank's place in a communicator: the words that its members share, and what they say of each other.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "segment.h"

namespace ds {

class Membership {
 public:
  // Room `room` of the segment; member q is rank world_ranks[q] of the world.
  Membership(std::shared_ptr<Segment> segment, int room, int rank, std::vector<int> world_ranks)
      : segment_(std::move(segment)), room_(room), rank_(rank), world_ranks_(std::move(world_ranks)) {}
  ~Membership() { segment_->leave_room(room_); }
  Membership(const Membership&) = delete;

  int rank() const { return rank_; }
  int size() const { return int(world_ranks_.size()); }
  const std::vector<int>& world_ranks() const { return world_ranks_; }
  const std::shared_ptr<Segment>& segment() const { return segment_; }
  Gate& gate() const { return segment_->gate(room_); }
  Member& member(int rank) const { return segment_->member(room_, rank); }
  Member& me() const { return member(rank_); }
  Pair& pair(int from, int to) const { return segment_->pair(room_, from, to); }
  char* slot(int rank, int index) const { return segment_->slot(room_, rank, index); }
  ProcessId process_of(int rank) const { return segment_->process(world_ranks_[size_t(rank)]); }
  // People know ranks by their place in the world.
  std::string name_of(int rank) const { return "rank " + std::to_string(world_ranks_[size_t(rank)]); }

  // This rank's record: a call that it has made, and that all up to a number are over.
  void issued(const Call& call);
  void finished(uint64_t number);
  // A peer's oldest call that is not over, if there is one and it is not just changing.
  bool pending_call(int peer, Call& call) const;
  // What ranks did last, for people.
  std::string flight_of(int rank) const;
  std::string flight_record() const;

  // Errors that every rank hears of. None of them is thrown here.
  Error mismatch(const Call& mine, const std::vector<Call>& of_all) const;
  Error message_mismatch(const Call& send, const Call& receive) const;
  Error not_meeting(int peer, const Call& mine, const Call& theirs) const;
  Error has_left(int peer, const Call& waiting) const;
  Error has_ended(int peer, const Call& waiting) const;
  Error timed_out(const std::vector<int>& missing, const Call& waiting, int64_t timeout_ms) const;
  Error cannot_call(const std::string& what) const;
  Error aborted(const std::string& reason) const;

 private:
  const std::shared_ptr<Segment> segment_;
  const int room_, rank_;
  const std::vector<int> world_ranks_;
};

int64_t steady_ms();

}  // namespace ds
