// Shared-memory collectives: attaching, rounds, headers, the life of a call.
#include "shm.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "../runtime/futex.h"

namespace ds {
namespace {

constexpr int64_t kSpinNs = 30000;  // a hand-over between two running ranks takes a few microseconds
constexpr int64_t kShortSpinNs = 1000;
constexpr uint64_t kFailedSpins = 8;  // in a row: the others do not seem to run while we spin
constexpr int64_t kLookNs = 100 * 1000000;
constexpr uint64_t kProbe = 0x70726f6265647321;

bool reached(uint32_t value, uint32_t target) { return int32_t(value - target) >= 0; }

struct Sleeper {
  std::atomic<uint32_t>& count;
  explicit Sleeper(std::atomic<uint32_t>& count) : count(count) { count.fetch_add(1, std::memory_order_seq_cst); }
  ~Sleeper() { count.fetch_sub(1, std::memory_order_relaxed); }
};

std::vector<int> count_up(int n) {
  std::vector<int> ranks(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) ranks[size_t(i)] = i;
  return ranks;
}

}  // namespace

std::shared_ptr<ShmCommunicator> ShmCommunicator::attach(std::shared_ptr<Segment> segment, int rank,
                                                         const ShmOptions& options) {
  if (options.chunk_bytes < 4096 || options.chunk_bytes > Segment::kSlotBytes || options.chunk_bytes % 64)
    throw Error("CONFIG", "attach", "chunkBytes from 4096 to 524288, a multiple of 64",
                std::to_string(options.chunk_bytes), "");
  segment->take_place(rank, this_process());
  allow_siblings_to_read();
  int world = segment->world();
  return std::shared_ptr<ShmCommunicator>(new ShmCommunicator(std::move(segment), 0, rank, count_up(world), options));
}

ShmCommunicator::ShmCommunicator(std::shared_ptr<Segment> segment, int room, int rank, std::vector<int> world_ranks,
                                 const ShmOptions& options)
    : HostCommunicator(rank, int(world_ranks.size())),
      members_(std::make_shared<Membership>(std::move(segment), room, rank, std::move(world_ranks))),
      options_(options),
      headers_(size_t(size_)),
      sent_(size_t(size_)),
      taken_(size_t(size_)),
      sends_(size_t(size_)),
      receives_(size_t(size_)),
      probe_(kProbe),
      random_(uint64_t(rank) * 0x9e3779b97f4a7c15u + 1) {}

ShmCommunicator::~ShmCommunicator() { leave(); }

void ShmCommunicator::leave() {
  leaving_ = true;
  me().left.store(1, std::memory_order_release);
}

void ShmCommunicator::abort(const std::string& reason) { segment().fail(members_->aborted(reason)); }

void ShmCommunicator::skipped(const std::string& what) {
  if (!leaving_) segment().fail(members_->cannot_call(what));
}

std::string ShmCommunicator::transport() const {
  int ways = ways_;
  return ways == 0 ? "shared memory, not met yet" : ways == 1 ? "shared memory, staged" : "shared memory, single copy";
}

void ShmCommunicator::announce(std::atomic<uint32_t>& word, uint32_t value, std::atomic<uint32_t>& sleepers) {
  word.store(value, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst)) futex_wake(word, true);
}

template <class Ready, class Missing>
void ShmCommunicator::await(std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers, Ready ready,
                            Missing missing) {
  // A spin pays when the others run on cores of their own, and robs them when they do not. After some in vain it is
  // tried now and then only.
  bool whole = failed_spins_ < kFailedSpins || ++waits_ % kFailedSpins == 0;
  bool soon = spin_until(ready, whole ? kSpinNs : kShortSpinNs);
  if (whole) failed_spins_ = soon ? 0 : failed_spins_ + 1;
  if (soon) return;
  int64_t began = steady_ms(), looked = began;
  Sleeper sleeper(sleepers);
  while (true) {
    uint32_t seen = word.load(std::memory_order_seq_cst);
    if (ready()) return;
    futex_wait(word, seen, kLookNs, true);
    if (ready()) return;
    int64_t now = steady_ms();
    if ((now - looked) * 1000000 < kLookNs) continue;
    looked = now;
    look(now - began, missing);
  }
}

bool ShmCommunicator::arrive() {
  uint32_t target = uint32_t(++rounds_);
  me().round.store(target, std::memory_order_release);
  Gate& gate = members_->gate();
  if (gate.arrivals.fetch_add(1, std::memory_order_acq_rel) + 1 != uint64_t(size_) * rounds_) return false;
  announce(gate.generation, target, gate.sleepers);
  return true;
}

void ShmCommunicator::await_round() {
  uint32_t target = uint32_t(rounds_);
  Gate& gate = members_->gate();
  await(
      gate.generation, gate.sleepers, [&] { return reached(gate.generation.load(std::memory_order_acquire), target); },
      [this, target](int q) { return !reached(member(q).round.load(std::memory_order_acquire), target); });
}

void ShmCommunicator::meet() {
  if (!arrive()) await_round();
}

void ShmCommunicator::await_pair(std::atomic<uint32_t>& word, std::atomic<uint32_t>& sleepers, uint32_t steps,
                                 int peer) {
  auto ready = [&] { return reached(word.load(std::memory_order_acquire), steps); };
  await(word, sleepers, ready, [&](int q) { return q == peer && !ready(); });
}

void ShmCommunicator::open(const std::function<void()>& meanwhile) {
  opened_ = true;
  me().header[current_.sequence & 1].store(current_);
  bool last = arrive();
  if (meanwhile) meanwhile();
  if (!last) await_round();
  bool same = true;
  for (int q = 0; q < size_; ++q) {
    headers_[size_t(q)] = member(q).header[current_.sequence & 1].load();
    same = same && same_collective(headers_[size_t(q)], current_);
  }
  if (!same) throw members_->mismatch(current_, headers_);
}

void ShmCommunicator::round() { opened_ ? meet() : open(); }

// Numbers a call, keeps its record, and makes its failure everybody's.
void ShmCommunicator::run_call(Call call, const std::function<void()>& move) {
  call.number = ++calls_;
  if (call.primitive == Primitive::send)
    call.sequence = ++sends_[size_t(call.peer)];
  else if (call.primitive == Primitive::recv)
    call.sequence = ++receives_[size_t(call.peer)];
  else if (call.primitive != Primitive::hello)
    call.sequence = ++collectives_;
  current_ = call;
  opened_ = false;
  members_->issued(call);
  if (options_.jitter_us) {
    random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
    std::this_thread::sleep_for(std::chrono::microseconds(random_ % uint64_t(options_.jitter_us)));
  }
  try {
    move();
  } catch (const Error& error) {
    if (leaving_) throw;
    throw segment().fail(error);
  }
  members_->finished(calls_);
}

// Before any call of its own, a rank has met all others once.
void ShmCommunicator::connect() {
  if (segment().failed()) throw segment().failure();
  if (leaving_) throw Error("DISPOSED", "collective", "a live group", "one that was destroyed", "");
  if (ways_ == 0) hello();
}

void ShmCommunicator::run(const Collective& op) {
  connect();
  run_call(call_of(op), [&] {
    if (op.primitive == Primitive::send) return send(op);
    if (op.primitive == Primitive::recv) return receive(op);
    pulls(current_) ? move_pulled(op) : move_staged(op);
  });
}

// The first call of a group: do all have the same options, and can everybody read everybody's memory?
void ShmCommunicator::hello() {
  Call call;
  call.primitive = Primitive::hello;
  const char* names[] = {"auto", "pulled", "staged"};
  set_tag(call, std::string("transport ") + names[int(options_.transport)] + ", chunkBytes " +
                    std::to_string(options_.chunk_bytes));
  call.address = reinterpret_cast<uint64_t>(&probe_);
  run_call(call, [&] {
    round();
    bool can_read = options_.transport != Transport::staged;
    for (int q = 0; q < size_ && can_read; ++q) {
      uint64_t word = 0;
      can_read = q == rank_ ||
                 (read_memory(members_->process_of(q).pid, &word, headers_[size_t(q)].address, sizeof word) == 0 &&
                  word == kProbe);
    }
    me().can_read.store(can_read, std::memory_order_relaxed);
    me().has_room.store(int(std::thread::hardware_concurrency()) >= segment().world(), std::memory_order_relaxed);
    round();
    bool all = true, room = true;
    for (int q = 0; q < size_; ++q) {
      all = all && member(q).can_read.load(std::memory_order_relaxed);
      room = room && member(q).has_room.load(std::memory_order_relaxed);
    }
    if (!all && options_.transport == Transport::pulled)
      throw Error("UNSUPPORTED", "transport pulled", "leave to read the other ranks' memory", "a refusal by the system",
                  "use transport auto, or allow process_vm_readv (kernel.yama.ptrace_scope, seccomp)");
    crowded_ = !room;
    ways_ = all ? 2 : 1;
  });
}

std::shared_ptr<HostCommunicator> ShmCommunicator::split(int color, int key) {
  struct Row {
    int32_t color, key, room;
  };
  connect();
  Call call;
  call.primitive = Primitive::split;
  std::vector<int> ranks;
  int room = -1;
  run_call(call, [&] {
    std::vector<Row> rows(static_cast<size_t>(size_));
    auto exchange = [&](Row mine) {
      steps(
          1, [&](int64_t) { std::memcpy(slot(rank_), &mine, sizeof mine); },
          [&](int64_t) {
            for (int q = 0; q < size_; ++q) std::memcpy(&rows[size_t(q)], slot(q), sizeof mine);
          });
    };
    exchange({color, key, -1});
    for (int q = 0; q < size_; ++q)
      if (color >= 0 && rows[size_t(q)].color == color) ranks.push_back(q);
    std::stable_sort(ranks.begin(), ranks.end(),
                     [&](int a, int b) { return rows[size_t(a)].key < rows[size_t(b)].key; });
    bool leads = !ranks.empty() && ranks[0] == rank_;
    exchange({color, key, leads ? segment().take_room(int(ranks.size())) : -1});
    if (ranks.empty()) return;
    room = rows[size_t(ranks[0])].room;
    if (room < 0)
      throw Error("COMM", "split", "room for one more group", "none", "destroy() groups that are no longer used");
  });
  if (ranks.empty()) return nullptr;
  int rank = int(std::find(ranks.begin(), ranks.end(), rank_) - ranks.begin());
  for (int& r : ranks) r = members_->world_ranks()[size_t(r)];
  std::shared_ptr<ShmCommunicator> part(
      new ShmCommunicator(members_->segment(), room, rank, std::move(ranks), options_));
  part->ways_ = int(ways_);
  part->crowded_ = crowded_;
  return part;
}

}  // namespace ds
