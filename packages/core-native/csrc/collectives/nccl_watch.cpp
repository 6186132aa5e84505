#include "nccl_watch.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "nccl.h"

namespace ds {
namespace {

constexpr auto kBusy = std::chrono::milliseconds(2), kIdle = std::chrono::milliseconds(50);
constexpr int64_t kLookMs = 100;
constexpr int64_t kPartingMs = 5000;  // for all ranks to be done with a group that was destroyed
constexpr int64_t kHurriedMs = 300;   // the same, at the end of the process
constexpr auto kLongest = std::chrono::seconds(3);
constexpr uint64_t kSure = 3;  // looks in a row that find the same

std::atomic<bool> started{false};

}  // namespace

NcclWatcher& NcclWatcher::shared() {
  static auto* watcher = new NcclWatcher;
  return *watcher;
}

NcclWatcher::NcclWatcher() {
  std::thread([this] { work(); }).detach();
  started = true;
}

void NcclWatcher::see_off() {
  if (!started) return;
  NcclWatcher& watcher = shared();
  ++watcher.hurried_;
  watcher.wake();
  {
    std::unique_lock lock(watcher.mutex_);
    watcher.rested_.wait_for(lock, kLongest, [&] {
      auto& all = watcher.communicators_;
      return !watcher.working_ && std::none_of(all.begin(), all.end(), [](auto& c) { return bool(c->leaving_); });
    });
  }
  --watcher.hurried_;
}

void NcclWatcher::add(std::shared_ptr<NcclCommunicator> communicator) {
  {
    std::lock_guard lock(mutex_);
    communicators_.push_back(std::move(communicator));
  }
  wake();
}

void NcclWatcher::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

void NcclWatcher::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    auto all = communicators_;
    working_ = true;
    lock.unlock();
    bool busy = false;
    int64_t now = steady_ms();
    std::vector<std::shared_ptr<NcclCommunicator>> done;
    for (auto& communicator : all) {
      if (!communicator->watch(now)) done.push_back(communicator);
      std::lock_guard flight(communicator->flight_mutex_);
      busy = busy || !communicator->in_flight_.empty();
    }
    all.clear();
    lock.lock();
    std::erase_if(communicators_, [&](auto& c) { return std::find(done.begin(), done.end(), c) != done.end(); });
    lock.unlock();
    done.clear();  // the last holder, outside the lock
    lock.lock();
    working_ = false;
    rested_.notify_all();
    // What is new is looked at after a moment, not at once: it needs time to happen.
    if (busy)
      changed_.wait_for(lock, kBusy, [] { return false; });
    else
      changed_.wait_for(lock, hurried_ ? kBusy : kIdle, [this] { return woken_; });
    woken_ = false;
  }
}

bool NcclCommunicator::watch(int64_t now) {
  if (!segment().failed()) {
    try {
      watch_calls(now);
      look_at_nccl();
    } catch (const Error& error) {  // of the device, or found here
      if (!leaving_) segment().fail(error);
    }
  }
  if (segment().failed()) give_up(segment().failure());
  if (!leaving_) return true;
  {
    std::lock_guard lock(flight_mutex_);
    if (!in_flight_.empty()) return true;
  }
  // The others may still read what NCCL has of ours.
  if (!left_ms_) left_ms_ = now;
  members_->me().left.store(1, std::memory_order_release);
  if (!segment().failed() && !others_have_left() &&
      now - left_ms_ < (NcclWatcher::shared().hurried_ ? kHurriedMs : kPartingMs))
    return true;
  give_up(Error("DISPOSED", "collective", "a live group", "one that was destroyed", ""));
  return false;
}

bool NcclCommunicator::others_have_left() const {
  for (int q = 0; q < size_; ++q)
    if (!members_->member(q).left.load(std::memory_order_acquire) && is_alive(members_->process_of(q))) return false;
  return true;
}

void NcclCommunicator::watch_calls(int64_t now) {
  while (true) {
    InFlight front;
    {
      std::lock_guard lock(flight_mutex_);
      if (in_flight_.empty()) return;
      front = in_flight_.front();
    }
    const Call& call = front.call;
    if (front.began_ms < 0 && front.started->passed()) {
      front.began_ms = now;
      if (!is_pairwise(call.primitive)) members_->me().arrived.store(call.sequence, std::memory_order_release);
      std::lock_guard lock(flight_mutex_);
      if (!in_flight_.empty()) in_flight_.front().began_ms = now;
    }
    if (front.began_ms < 0) return;
    if (!front.done->passed()) {
      if (now - looked_ms_ >= kLookMs) {
        looked_ms_ = now;
        look_at_peers(call);
      }
      if (now - front.began_ms <= options_.timeout_ms) return;
      std::vector<int> missing;
      for (int q = 0; q < size_; ++q) {
        if (q == rank_ || (is_pairwise(call.primitive) && q != call.peer)) continue;
        if (is_pairwise(call.primitive) || members_->member(q).arrived.load(std::memory_order_acquire) < call.sequence)
          missing.push_back(q);
      }
      throw members_->timed_out(missing, call, options_.timeout_ms);
    }
    suspicions_ = 0;
    if (call.primitive == Primitive::send)
      sent_[size_t(call.peer)] = call.sequence;
    else if (call.primitive == Primitive::recv)
      received_[size_t(call.peer)] = call.sequence;
    else
      over_ = call.sequence;
    members_->finished(call.number);
    std::lock_guard lock(flight_mutex_);
    if (!in_flight_.empty()) in_flight_.pop_front();
  }
}

// The call is on its way, and takes a while. A finding that may have been passing by counts when it stays.
void NcclCommunicator::look_at_peers(const Call& call) {
  bool message = is_pairwise(call.primitive);
  std::optional<Error> suspicion;
  for (int q = 0; q < size_; ++q) {
    if (q == rank_ || (message && q != call.peer)) continue;
    Pair& pair = call.primitive == Primitive::send ? members_->pair(rank_, q) : members_->pair(q, rank_);
    auto& theirs = call.primitive == Primitive::send ? pair.taken : pair.sent;
    bool queued = message ? theirs.load(std::memory_order_acquire) >= call.sequence
                          : members_->member(q).queued.load(std::memory_order_acquire) >= call.sequence;
    // One that has left or ended after its half was queued may have done it.
    if (auto why = never_comes(q, call)) {
      if (!queued) throw *why;
      suspicion = why;
    }
    Call pending;
    if (!members_->pending_call(q, pending)) continue;
    bool crossed = false;
    if (!message && is_pairwise(pending.primitive) && pending.peer == rank_)
      crossed = pending.sequence > (pending.primitive == Primitive::recv ? sent_ : received_)[size_t(q)];
    if (message && !is_pairwise(pending.primitive)) crossed = pending.sequence > over_;
    if (crossed) suspicion = members_->not_meeting(q, call, pending);
  }
  suspicions_ = suspicion ? suspicions_ + 1 : 0;
  if (suspicions_ >= kSure) throw *suspicion;
}

void NcclCommunicator::look_at_nccl() {
  NcclResult error = kNcclSuccess;
  {
    std::lock_guard lock(comm_mutex_);
    if (!comm_) return;
    NcclResult asked = NcclLibrary::get().functions.CommGetAsyncError(comm_, &error);
    if (asked != kNcclSuccess) error = asked;
  }
  if (error == kNcclSuccess || error == kNcclInProgress) return;
  std::string op = "collective";
  {
    std::lock_guard lock(flight_mutex_);
    if (!in_flight_.empty()) op = short_name(in_flight_.front().call);
  }
  Error reported = nccl_error(error, op);
  throw Error("COMM", op, reported.expected,
              members_->name_of(rank_) + ": " + reported.actual + ". Flight record: " + members_->flight_record(),
              reported.hint);
}

// The kernels that still wait end soon after, so that streams come to their joins, which tell why.
void NcclCommunicator::give_up(const Error& why) {
  {
    std::lock_guard lock(flight_mutex_);
    if (!given_up_) given_up_ = why;
    if (!in_flight_.empty()) outcome_->fail(why);
    in_flight_.clear();
  }
  NcclComm* comm = nullptr;
  {
    std::lock_guard lock(comm_mutex_);
    std::swap(comm, comm_);
  }
  if (comm) NcclLibrary::get().functions.CommAbort(comm);
}

}  // namespace ds
