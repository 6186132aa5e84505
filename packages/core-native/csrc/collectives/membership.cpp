#include "membership.h"

#include <chrono>
#include <cstdio>

namespace ds {
namespace {

std::string seconds(int64_t ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", double(ms) / 1000);
  return text;
}

}  // namespace

int64_t steady_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

void Membership::issued(const Call& call) {
  Member& m = me();
  m.history[call.number % Member::kHistory].store(call);
  m.changed_ms.store(uint64_t(steady_ms()), std::memory_order_relaxed);
  m.issued.store(call.number, std::memory_order_release);
}

void Membership::finished(uint64_t number) {
  Member& m = me();
  m.changed_ms.store(uint64_t(steady_ms()), std::memory_order_relaxed);
  m.finished.store(number, std::memory_order_release);
}

bool Membership::pending_call(int peer, Call& call) const {
  Member& m = member(peer);
  uint64_t finished = m.finished.load(std::memory_order_acquire), next = finished + 1;
  if (m.issued.load(std::memory_order_acquire) < next) return false;
  call = m.history[next % Member::kHistory].load();
  return call.number == next && m.finished.load(std::memory_order_acquire) == finished;
}

std::string Membership::flight_of(int rank) const {
  Member& m = member(rank);
  uint64_t issued = m.issued.load(std::memory_order_acquire), finished = m.finished.load(std::memory_order_acquire);
  std::string text = name_of(rank) + ": ";
  if (process_of(rank).pid == 0) return text + "never attached";
  if (issued == 0) return text + "no call yet";
  std::string since = seconds(steady_ms() - int64_t(m.changed_ms.load(std::memory_order_relaxed)));
  text += finished ? "finished " + describe(m.history[finished % Member::kHistory].load()) : "finished nothing";
  if (issued == finished) return text + ", nothing pending for " + since;
  text += ", pending " + describe(m.history[(finished + 1) % Member::kHistory].load());
  if (issued > finished + 1) text += " and " + std::to_string(issued - finished - 1) + " behind it";
  return text + " for " + since;
}

std::string Membership::flight_record() const {
  std::string text;
  for (int q = 0; q < size(); ++q) text += (q ? "; " : "") + flight_of(q);
  return text;
}

// Made from the same calls on every rank, so every rank writes the same sentence.
Error Membership::mismatch(const Call& mine, const std::vector<Call>& of_all) const {
  std::string calls;
  for (int q = 0; q < size(); ++q) {
    auto& call = of_all[size_t(q)];
    bool told = false;
    std::string who;
    for (int p = 0; p < size(); ++p) {
      if (!same_collective(of_all[size_t(p)], call)) continue;
      if (p < q) told = true;
      who += (who.empty() ? "" : ", ") + std::to_string(world_ranks_[size_t(p)]);
    }
    if (told) continue;
    bool several = who.find(',') != std::string::npos;
    calls += (calls.empty() ? "" : "; ") + std::string(several ? "ranks " : "rank ") + who + ": " +
             (call.number ? describe(call) : "nothing");
  }
  return Error(
      "COMM", "collective #" + std::to_string(mine.sequence), "the same call on every rank", calls,
      "this is the first call that differs: ranks must issue collectives in one order, with one shape and dtype");
}

Error Membership::message_mismatch(const Call& send, const Call& receive) const {
  return Error("COMM", short_name(receive), "one message on both ends",
               name_of(receive.peer) + ": " + describe(send) + "; " + name_of(send.peer) + ": " + describe(receive),
               "messages between two ranks arrive in the order they were sent");
}

Error Membership::not_meeting(int peer, const Call& mine, const Call& theirs) const {
  std::string ours = name_of(rank_) + ": " + describe(mine), other = name_of(peer) + ": " + describe(theirs);
  return Error("COMM", "collective", "calls that meet", rank_ < peer ? ours + "; " + other : other + "; " + ours,
               "all ranks must issue the calls of a group in one order");
}

Error Membership::has_left(int peer, const Call& waiting) const {
  return Error("COMM", short_name(waiting), "every rank to take part",
               name_of(peer) + " that has left the group; " + flight_of(peer),
               "it ended, or called destroy(), before this call");
}

Error Membership::has_ended(int peer, const Call& waiting) const {
  return Error("COMM", short_name(waiting), "every rank to be alive",
               name_of(peer) + " (pid " + std::to_string(process_of(peer).pid) + ") that has ended; " + flight_of(peer),
               "its own output tells why; killed by signal 9 is mostly the system out of memory");
}

Error Membership::timed_out(const std::vector<int>& missing, const Call& waiting, int64_t timeout_ms) const {
  std::string who;
  for (int q : missing) who += (who.empty() ? "" : ", ") + std::to_string(world_ranks_[size_t(q)]);
  bool all_came = missing.empty();
  return Error("COMM_TIMEOUT", short_name(waiting), "all ranks within " + seconds(timeout_ms),
               (all_came ? "all of them, and no end of the call" : "no call from rank " + who) +
                   ". Flight record: " + flight_record(),
               all_came ? "the way between the ranks is blocked or very slow; timeoutMs allows more time"
                        : "a missing rank is slow, stopped, or in another branch of the program; timeoutMs allows "
                          "more time");
}

Error Membership::cannot_call(const std::string& what) const {
  return Error("COMM", what, "every rank to take part",
               name_of(rank_) + " that cannot: an earlier command of its stream failed", "see the error of that rank");
}

Error Membership::aborted(const std::string& reason) const {
  return Error("ABORTED", "collective", "a group that goes on",
               name_of(rank_) + " aborted it" + (reason.empty() ? "" : ": " + reason), "");
}

}  // namespace ds
