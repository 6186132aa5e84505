// Shared-memory collectives: what a rank that has waited for a while looks at, and what it reports.
#include "shm.h"

namespace ds {

void ShmCommunicator::look(int64_t waited_ms, const std::function<bool(int)>& missing) {
  if (segment().failed()) throw segment().failure();
  if (leaving_)
    throw Error("ABORTED", short_name(current_), "a group that lives until its calls are done",
                "one that was destroyed", "join the stream before destroy()");
  for (int q = 0; q < size_; ++q)
    if (q != rank_ && missing(q)) look_at(q, missing);
  if (waited_ms <= options_.timeout_ms) return;
  std::vector<int> absent;
  for (int q = 0; q < size_; ++q)
    if (q != rank_ && missing(q)) absent.push_back(q);
  throw segment().fail(members_->timed_out(absent, current_, options_.timeout_ms));
}

void ShmCommunicator::look_at(int peer, const std::function<bool(int)>& missing) {
  Member& m = member(peer);
  // Each finding is believed only if the peer is missing still: it may have arrived, and gone, in between.
  if (m.left.load(std::memory_order_acquire) && missing(peer)) throw segment().fail(members_->has_left(peer, current_));
  ProcessId process = members_->process_of(peer);
  if (process.pid && !is_alive(process) && missing(peer)) throw segment().fail(members_->has_ended(peer, current_));
  // A rank in a collective and one in a message between the same two wait for each other for ever.
  Call call;
  if (!members_->pending_call(peer, call)) return;
  bool mine = is_pairwise(current_.primitive), theirs = is_pairwise(call.primitive);
  bool waits_for_me = false;
  if (!mine && theirs && call.peer == rank_) {
    auto& made = call.primitive == Primitive::recv ? sends_ : receives_;
    waits_for_me = call.sequence > made[size_t(peer)];
  }
  if (mine && !theirs) waits_for_me = call.sequence > collectives_;
  if (!waits_for_me || !missing(peer)) return;
  throw segment().fail(members_->not_meeting(peer, current_, call));
}

}  // namespace ds
