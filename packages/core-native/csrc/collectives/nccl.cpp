// NCCL's communicator: opening, the order and the headers of calls.
#include "nccl.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "nccl_watch.h"

namespace ds {
namespace {

constexpr int64_t kLookMs = 100;
constexpr int64_t kLastWordMs = 1000;  // for the ranks' calls to be there when one of them has been found to differ
// So many calls may be on their way: their records must still be there when one is missed.
constexpr size_t kMaxInFlight = Member::kHistory - 16;

// Short at first: another rank is mostly microseconds away.
class Patience {
 public:
  void wait() {
    std::this_thread::sleep_for(std::chrono::microseconds(us_));
    us_ = std::min<int64_t>(us_ * 2, 1000);
  }

 private:
  int64_t us_ = 10;
};

}  // namespace

std::shared_ptr<NcclCommunicator> NcclCommunicator::create(const HostCommunicator& host, int device,
                                                           const NcclOptions& options) {
  return std::shared_ptr<NcclCommunicator>(new NcclCommunicator(host.rank(), host.size(), device, options));
}

NcclCommunicator::~NcclCommunicator() {
  if (comm_) NcclLibrary::get().functions.CommAbort(comm_);
}

std::function<void()> NcclCommunicator::prepare_open(HostCommunicator& host, CudaStream* stream) {
  auto copy = std::make_shared<std::shared_ptr<HostCommunicator>>();
  auto join = host.prepare_split(0, host.rank(), copy.get());
  return in_turn("open NCCL", [this, stream, copy, join = std::move(join)]() mutable {
    join();
    open(*copy, *stream);
  });
}

void NcclCommunicator::open(std::shared_ptr<HostCommunicator> host, CudaStream& stream) {
  host_ = std::move(host);
  members_ = host_->members();
  sends_.resize(size_t(size_)), receives_.resize(size_t(size_));
  sent_.resize(size_t(size_)), received_.resize(size_t(size_));
  current_.primitive = Primitive::hello;
  set_tag(current_, "NCCL");
  met_ = true;
  try {
    set_transport();
    if (has_nccl()) {
      NcclId id = share_id();
      stream.record();  // makes the device the current one of this thread, for NCCL to see
      NcclConfig config;
      NcclComm* comm = nullptr;
      NcclResult result = NcclLibrary::get().functions.CommInitRankConfig(&comm, size_, id, rank_, &config);
      {
        std::lock_guard lock(comm_mutex_);
        comm_ = comm;
      }
      settle(result);
    }
  } catch (const Error& error) {
    throw leaving_ ? error : segment().fail(error);
  }
  calls_ = members_->me().issued.load(std::memory_order_relaxed);  // of the copy, while it met
  NcclWatcher::shared().add(std::static_pointer_cast<NcclCommunicator>(shared_from_this()));
}

void NcclCommunicator::set_transport() {
  std::string sums = options_.sums == NcclSums::exact ? "sums in order of ranks" : "sums in NCCL's own order";
  std::string text = has_nccl() ? "NCCL " + NcclLibrary::get().version_text() + ", " + sums : "one rank, without NCCL";
  std::lock_guard lock(comm_mutex_);
  transport_ = text;
}

// Rank 0 makes it. The header of the broadcast says what must be alike on all ranks.
NcclId NcclCommunicator::share_id() {
  const NcclLibrary& library = NcclLibrary::get();
  NcclId id{};
  if (rank_ == 0) {
    NcclResult result = library.functions.GetUniqueId(&id);
    if (result != kNcclSuccess) throw nccl_error(result, "open NCCL");
  }
  Collective op;
  op.primitive = Primitive::broadcast;
  op.peer = 0;
  op.tag = transport();
  op.out.data = &id, op.out.rank = 1, op.out.dims[0] = sizeof id, op.out.dtype = DType::u8, op.out.present = true;
  op.in = op.out;
  host_->prepare(std::move(op))();
  return id;
}

void NcclCommunicator::throw_if_over() const {
  if (segment().failed()) throw segment().failure();
  if (leaving_) throw Error("DISPOSED", "collective", "a live group", "one that was destroyed", "");
}

std::optional<Error> NcclCommunicator::never_comes(int peer, const Call& call) const {
  if (members_->member(peer).left.load(std::memory_order_acquire)) return members_->has_left(peer, call);
  ProcessId process = members_->process_of(peer);
  if (process.pid && !is_alive(process)) return members_->has_ended(peer, call);
  return std::nullopt;
}

void NcclCommunicator::await(const Call& call, const std::function<bool(int)>& missing) {
  auto ready = [&] {
    for (int q = 0; q < size_; ++q)
      if (q != rank_ && missing(q)) return false;
    return true;
  };
  await(call, ready, missing);
}

void NcclCommunicator::await(const Call& call, const std::function<bool()>& ready,
                             const std::function<bool(int)>& missing) {
  Patience patience;
  int64_t began = steady_ms(), looked = began;
  while (!ready()) {
    throw_if_over();
    int64_t now = steady_ms();
    if (now - looked >= kLookMs) {
      looked = now;
      std::vector<int> ranks;
      for (int q = 0; q < size_; ++q) {
        if (q == rank_ || !missing(q)) continue;
        if (auto why = never_comes(q, call); why && missing(q)) throw *why;
        ranks.push_back(q);
      }
      if (now - began > options_.timeout_ms) throw members_->timed_out(ranks, call, options_.timeout_ms);
    }
    patience.wait();
  }
}

void NcclCommunicator::await_room() {
  Patience patience;
  auto full = [&] {
    std::lock_guard lock(flight_mutex_);
    return in_flight_.size() >= kMaxInFlight;
  };
  while (full()) {
    throw_if_over();
    patience.wait();
  }
}

void NcclCommunicator::number(Call& call) {
  call.number = ++calls_;
  if (call.primitive == Primitive::send)
    call.sequence = ++sends_[size_t(call.peer)];
  else if (call.primitive == Primitive::recv)
    call.sequence = ++receives_[size_t(call.peer)];
  else
    call.sequence = ++collectives_;
}

void NcclCommunicator::enter_collective(const Call& call) {
  constexpr uint64_t kAhead = Member::kAhead;
  uint64_t s = call.sequence;
  // A header makes way once everybody has compared it, and published the next one.
  await(call, [&](int q) { return members_->member(q).queued.load(std::memory_order_acquire) + kAhead < s + 1; });
  members_->me().ahead[s % kAhead].store(call);
  members_->me().queued.store(s, std::memory_order_seq_cst);
  for (int q = 0; q < size_; ++q) {
    Member& m = members_->member(q);
    if (m.queued.load(std::memory_order_seq_cst) >= s && !same_collective(m.ahead[s % kAhead].load(), call))
      throw mismatch(call);
  }
}

// Says all ranks' calls, and waits a moment for those that are not there yet.
Error NcclCommunicator::mismatch(const Call& call) const {
  std::vector<Call> headers(static_cast<size_t>(size_));
  int64_t deadline = steady_ms() + kLastWordMs;
  for (int q = 0; q < size_; ++q) {
    Member& m = members_->member(q);
    while (m.queued.load(std::memory_order_acquire) < call.sequence && steady_ms() < deadline && !segment().failed())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (m.queued.load(std::memory_order_acquire) >= call.sequence)
      headers[size_t(q)] = m.ahead[call.sequence % Member::kAhead].load();
  }
  return members_->mismatch(call, headers);
}

void NcclCommunicator::enter_message(const Call& call) {
  constexpr uint64_t kAhead = Pair::kAhead;
  bool sends = call.primitive == Primitive::send;
  Pair& pair = sends ? members_->pair(rank_, call.peer) : members_->pair(call.peer, rank_);
  auto &mine = sends ? pair.sent : pair.taken, &theirs = sends ? pair.taken : pair.sent;
  uint64_t s = call.sequence;
  await(call, [&](int q) { return q == call.peer && theirs.load(std::memory_order_acquire) + kAhead < s + 1; });
  // A pointer: g++ 12 with -fsanitize=undefined stores to a copy of the array that a conditional chooses.
  Published<Call>* headers = sends ? pair.sends : pair.receives;
  headers[s % kAhead].store(call);
  mine.store(uint32_t(s), std::memory_order_seq_cst);
  // NCCL would let a receive take what a collective of the sender sends on the same way: it is not queued before the
  // message is, without which it could not go on anyway.
  if (!sends) await(call, [&](int q) { return q == call.peer && theirs.load(std::memory_order_acquire) < s; });
  if (theirs.load(std::memory_order_seq_cst) < s) return;
  Call send = pair.sends[s % kAhead].load(), receive = pair.receives[s % kAhead].load();
  if (send.count != receive.count || send.dtype != receive.dtype || send.tag_hash != receive.tag_hash)
    throw members_->message_mismatch(send, receive);
}

void NcclCommunicator::run(const Collective& op) {
  if (!met_) throw Error("COMM", "collective", "a group that was opened", "one that was not", "see the error before");
  throw_if_over();
  Call call = call_of(op);
  number(call);
  current_ = call;
  await_room();
  members_->issued(call);
  try {
    is_pairwise(call.primitive) ? enter_message(call) : enter_collective(call);
    CudaStream& stream = *op.cuda;
    // NCCL runs the calls of a communicator one after the other, and so do our own kernels between them.
    if (last_done_ && last_stream_ != &stream) stream.wait(*last_done_);
    auto started = stream.record();
    move(op);
    track(call, stream, std::move(started));
  } catch (const Error& error) {
    throw leaving_ ? error : segment().fail(error);
  }
}

void NcclCommunicator::track(const Call& call, CudaStream& stream, std::shared_ptr<CudaEvent> started) {
  stream.depend(outcome_);
  last_stream_ = &stream;
  last_done_ = stream.record();
  {
    std::lock_guard lock(flight_mutex_);
    if (given_up_) outcome_->fail(*given_up_);
    in_flight_.push_back({call, std::move(started), last_done_});
  }
  NcclWatcher::shared().wake();
#ifdef DS_SANITIZE
  stream.drain();  // as CudaStream::launch does
#endif
}

Error NcclCommunicator::nccl_error(NcclResult result, const std::string& op) const {
  const NcclFunctions& nccl = NcclLibrary::get().functions;
  const char* last = nccl.GetLastError(nullptr);
  return Error("COMM", op, "NCCL to do it",
               std::string(nccl.GetErrorString(result)) + (last && *last ? std::string(": ") + last : ""),
               "NCCL_DEBUG=WARN in the environment makes NCCL say more");
}

// NCCL makes connections in the background, when the other ranks come to the same call.
void NcclCommunicator::settle(NcclResult result) {
  auto ready = [&] {
    if (result != kNcclInProgress) return true;
    std::lock_guard lock(comm_mutex_);
    if (!comm_) return false;  // given up: the look at what is over says why
    NcclResult asked = NcclLibrary::get().functions.CommGetAsyncError(comm_, &result);
    if (asked != kNcclSuccess) result = asked;
    return result != kNcclInProgress;
  };
  await(current_, ready, [](int) { return true; });
  if (result != kNcclSuccess) throw nccl_error(result, short_name(current_));
}

void NcclCommunicator::nccl(const std::function<NcclResult(const NcclFunctions&, NcclComm*)>& function) {
  NcclResult result = kNcclInProgress;
  {
    std::lock_guard lock(comm_mutex_);
    if (comm_) result = function(NcclLibrary::get().functions, comm_);
  }
  settle(result);
}

std::string NcclCommunicator::transport() const {
  std::lock_guard lock(comm_mutex_);
  return transport_;
}

std::string NcclCommunicator::flight_record() const { return met_ ? members_->flight_record() : ""; }

void NcclCommunicator::abort(const std::string& reason) {
  if (met_) segment().fail(members_->aborted(reason));
}

void NcclCommunicator::skipped(const std::string& what) {
  if (met_ && !leaving_) segment().fail(members_->cannot_call(what));
}

void NcclCommunicator::retire() {
  leaving_ = true;
  NcclWatcher::shared().wake();
}

void NcclCommunicator::leave() {
  retire();
  bool waiting;
  {
    std::lock_guard lock(flight_mutex_);
    waiting = !in_flight_.empty();
  }
  if (!met_) return;
  members_->me().left.store(1, std::memory_order_release);
  if (waiting)
    give_up(Error("ABORTED", "collective", "a group that lives until its calls are done", "one that was destroyed",
                  "join the stream before destroy()"));
}

}  // namespace ds
