// Shared-memory collectives: what a rank that has waited for a while looks at, and what it reports.
#include <chrono>
#include <cstdio>

#include "shm.h"

namespace ds {
namespace {

std::string seconds(int64_t ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", double(ms) / 1000);
  return text;
}

int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

}  // namespace

// People know ranks by their place in the world.
std::string ShmCommunicator::name_of(int rank) const { return "rank " + std::to_string(world_ranks_[size_t(rank)]); }

void ShmCommunicator::look(int64_t waited_ms, const std::function<bool(int)>& missing) {
  if (segment_->failed()) throw segment_->failure();
  if (leaving_)
    throw Error("ABORTED", short_name(current_), "a group that lives until its calls are done",
                "one that was destroyed", "join the stream before destroy()");
  for (int q = 0; q < size_; ++q)
    if (q != rank_ && missing(q)) look_at(q, missing);
  if (waited_ms > options_.timeout_ms) time_out(missing);
}

void ShmCommunicator::look_at(int peer, const std::function<bool(int)>& missing) {
  Member& m = member(peer);
  // Each finding is believed only if the peer is missing still: it may have arrived, and gone, in between.
  if (m.left.load(std::memory_order_acquire) && missing(peer))
    throw segment_->fail(Error("COMM", short_name(current_), "every rank to take part",
                               name_of(peer) + " that has left the group; " + flight_of(peer),
                               "it ended, or called destroy(), before this call"));
  ProcessId process = process_of(peer);
  if (process.pid && !is_alive(process) && missing(peer))
    throw segment_->fail(
        Error("COMM", short_name(current_), "every rank to be alive",
              name_of(peer) + " (pid " + std::to_string(process.pid) + ") that has ended; " + flight_of(peer),
              "its own output tells why; killed by signal 9 is mostly the system out of memory"));
  // A rank in a collective and one in a message between the same two wait for each other for ever.
  Call call;
  if (!pending_call(peer, call)) return;
  bool mine = is_pairwise(current_.primitive), theirs = is_pairwise(call.primitive);
  bool waits_for_me = false;
  if (!mine && theirs && call.peer == rank_) {
    auto& made = call.primitive == Primitive::recv ? sends_ : receives_;
    waits_for_me = call.sequence > made[size_t(peer)];
  }
  if (mine && !theirs) waits_for_me = call.sequence > collectives_;
  if (!waits_for_me || !missing(peer)) return;
  std::string ours = name_of(rank_) + ": " + describe(current_), other = name_of(peer) + ": " + describe(call);
  throw segment_->fail(Error("COMM", "collective", "calls that meet",
                             rank_ < peer ? ours + "; " + other : other + "; " + ours,
                             "all ranks must issue the calls of a group in one order"));
}

// Reads a peer's pending call, if it has one and it is not just changing.
bool ShmCommunicator::pending_call(int peer, Call& call) const {
  Member& m = member(peer);
  uint64_t issued = m.issued.load(std::memory_order_acquire);
  if (issued == m.finished.load(std::memory_order_acquire)) return false;
  call = m.history[issued % Member::kHistory].load();
  return call.number == issued && m.issued.load(std::memory_order_acquire) == issued &&
         m.finished.load(std::memory_order_acquire) + 1 == issued;
}

std::string ShmCommunicator::flight_of(int rank) const {
  Member& m = member(rank);
  uint64_t issued = m.issued.load(std::memory_order_acquire), finished = m.finished.load(std::memory_order_acquire);
  std::string text = name_of(rank) + ": ";
  if (process_of(rank).pid == 0) return text + "never attached";
  if (issued == 0) return text + "no call yet";
  std::string since = seconds(now_ms() - int64_t(m.changed_ms.load(std::memory_order_relaxed)));
  text += finished ? "finished " + describe(m.history[finished % Member::kHistory].load()) : "finished nothing";
  if (issued == finished) return text + ", nothing pending for " + since;
  return text + ", pending " + describe(m.history[issued % Member::kHistory].load()) + " for " + since;
}

std::string ShmCommunicator::flight_record() const {
  std::string text;
  for (int q = 0; q < size_; ++q) text += (q ? "; " : "") + flight_of(q);
  return text;
}

void ShmCommunicator::time_out(const std::function<bool(int)>& missing) {
  std::string who;
  for (int q = 0; q < size_; ++q)
    if (q != rank_ && missing(q)) who += (who.empty() ? "" : ", ") + std::to_string(world_ranks_[size_t(q)]);
  throw segment_->fail(Error("COMM_TIMEOUT", short_name(current_), "all ranks within " + seconds(options_.timeout_ms),
                             "no call from rank " + who + ". Flight record: " + flight_record(),
                             "a missing rank is slow, stopped, or in another branch of the program; timeoutMs allows "
                             "more time"));
}

}  // namespace ds
