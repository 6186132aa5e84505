// A stand-in for libnccl.so.2, for tests on machines without a GPU: NCCL's functions over the emulated CUDA device, for
// the processes of one host.
//
// A communicator is memory that every rank maps, with a small ring of bytes for each ordered pair of ranks. A call
// becomes messages to and from the others, sent in pieces through the rings while somebody waits for the emulated
// stream, in the stream's order. Calls of one communicator run one after the other, whatever their streams. Each
// message begins with its size: where the two sides differ, NCCL would wait or worse; this one reports
// ncclInvalidUsage. As in NCCL, calls return before anything has moved, a communicator may report ncclInProgress for a
// while, sums are in an order of NCCL's own, and rounded at every step.
//
// Faults, by DS_FAKE_NCCL="rank=1,error_after=3" or "rank=0,hang_after=2": that rank's communicators report an error,
// or never move another byte, after so many calls. "busy=3": every call is in progress for three looks.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "collectives/nccl_abi.h"
#include "cuda/emulation/runtime.h"
#include "runtime/dtype.h"

#define DS_FAKE extern "C" __attribute__((visibility("default")))

namespace {

using namespace ds;

constexpr int kMaxRanks = 8;
constexpr size_t kRingBytes = 64 << 10;

// From one rank to another. Counts grow for ever.
struct Ring {
  std::atomic<uint64_t> written, read;
  char bytes[kRingBytes];
};

struct Shared {
  std::atomic<uint32_t> attached;
  std::atomic<uint32_t> aborted[kMaxRanks];
  Ring rings[kMaxRanks][kMaxRanks];  // [from][to]
};

int fault(const char* name, int otherwise) {
  const char* text = std::getenv("DS_FAKE_NCCL");
  const char* at = text ? std::strstr(text, (std::string(name) + "=").c_str()) : nullptr;
  return at ? std::atoi(at + std::strlen(name) + 1) : otherwise;
}

size_t size_of(NcclType type) {
  switch (type) {
    case kNcclUint8:
      return 1;
    case kNcclFloat16:
    case kNcclBfloat16:
      return 2;
    case kNcclFloat32:
      return 4;
    case kNcclFloat64:
      return 8;
  }
  return 0;
}

struct Message {
  int peer;
  bool outgoing;
  char* data;
  uint64_t bytes;
  uint64_t moved = 0;  // of size and bytes
  uint64_t size = 0;   // as it came
};

// One call on a stream: first its messages, then `after`.
struct Operation {
  std::shared_ptr<struct State> comm;
  uint64_t number;
  std::vector<Message> messages;
  std::vector<std::unique_ptr<std::vector<char>>> memory;
  std::function<void()> before, after;
  bool begun = false;
};

struct State {
  Shared* shared = nullptr;
  int rank, ranks, device;
  std::atomic<int> error{kNcclSuccess};
  std::atomic<int> looks{0};  // until nothing is in progress any more
  std::atomic<bool> dead{false};
  std::atomic<uint64_t> issued{0}, done{0};
  ~State() {
    if (shared) munmap(shared, sizeof(Shared));
  }
};

bool faulty(const State& comm) { return fault("rank", -1) == comm.rank; }

// Copies what fits. True when the message is through.
bool advance(State& comm, Message& m) {
  Ring& ring = m.outgoing ? comm.shared->rings[comm.rank][m.peer] : comm.shared->rings[m.peer][comm.rank];
  uint64_t total = sizeof m.size + m.bytes;
  auto byte_at = [&](uint64_t i) -> char* {
    return i < sizeof m.size ? reinterpret_cast<char*>(m.outgoing ? &m.bytes : &m.size) + i
                             : m.data + i - sizeof m.size;
  };
  while (m.moved < total) {
    uint64_t written = ring.written.load(std::memory_order_acquire), read = ring.read.load(std::memory_order_acquire);
    uint64_t at = m.outgoing ? written : read, room = m.outgoing ? kRingBytes - (written - read) : written - read;
    uint64_t part_end = m.moved < sizeof m.size ? sizeof m.size : total;
    uint64_t n = std::min({part_end - m.moved, room, kRingBytes - at % kRingBytes});
    if (n == 0) return false;
    char *inside = ring.bytes + at % kRingBytes, *outside = byte_at(m.moved);
    std::memcpy(m.outgoing ? inside : outside, m.outgoing ? outside : inside, n);
    (m.outgoing ? ring.written : ring.read).fetch_add(n, std::memory_order_release);
    m.moved += n;
    if (!m.outgoing && m.moved == sizeof m.size && m.size != m.bytes) {
      comm.error = kNcclInvalidUsage;
      return false;
    }
  }
  // A message is over when it has been taken: what only works because something is buffered is seen.
  return !m.outgoing || ring.read.load(std::memory_order_acquire) == ring.written.load(std::memory_order_acquire);
}

int step(void* state) {
  auto& op = *static_cast<Operation*>(state);
  State& comm = *op.comm;
  if (comm.dead) return 1;  // what was not moved is garbage, as on a GPU
  if (comm.done.load() + 1 < op.number || comm.error != kNcclSuccess) return 0;
  for (int q = 0; q < comm.ranks; ++q)
    if (comm.shared->aborted[q]) comm.error = kNcclRemoteError;
  if (faulty(comm)) {
    if (op.number > uint64_t(fault("error_after", 1 << 30))) comm.error = kNcclSystemError;
    if (op.number > uint64_t(fault("hang_after", 1 << 30))) return 0;
  }
  if (comm.error != kNcclSuccess) return 0;
  if (!op.begun && op.before) op.before();
  op.begun = true;
  // Messages between two ranks in one direction are one after the other; different ones side by side.
  std::set<std::pair<int, bool>> blocked;
  bool all = true;
  for (auto& m : op.messages) {
    if (blocked.count({m.peer, m.outgoing})) continue;
    if (advance(comm, m)) continue;
    blocked.insert({m.peer, m.outgoing});
    all = false;
  }
  if (!all) return 0;
  if (op.after) op.after();
  comm.done.store(op.number);
  return 1;
}

struct Group {
  int depth = 0;
  std::vector<std::pair<void*, std::unique_ptr<Operation>>> pending;  // with their streams
  NcclResult error = kNcclSuccess;
};
thread_local Group group;

NcclResult refuse(const char* why);

}  // namespace

namespace ds {
struct NcclComm {
  std::shared_ptr<State> state;
};
}  // namespace ds

namespace {

// Never destroyed: the thread that watches over calls outlives a process's static objects.
std::mutex& live_mutex = *new std::mutex;
std::set<NcclComm*>& live = *new std::set<NcclComm*>;
std::string last_error;

NcclResult refuse(const char* why) {
  std::lock_guard lock(live_mutex);
  last_error = why;
  return kNcclInvalidUsage;
}

bool is_live(NcclComm* comm) {
  std::lock_guard lock(live_mutex);
  return live.count(comm);
}

NcclResult submit(void* stream, std::unique_ptr<Operation> op) {
  op->number = ++op->comm->issued;
  op->comm->looks = fault("busy", 0);
  ds_emulated_enqueue(
      stream, &step, [](void* p) { delete static_cast<Operation*>(p); }, op.release());
  return fault("busy", 0) ? kNcclInProgress : kNcclSuccess;
}

// Checks what NCCL checks, and queues the call, or keeps it until its group ends.
template <class Build>
NcclResult call(NcclComm* comm, void* stream, Build build) {
  if (!comm || !is_live(comm)) return group.error = refuse("a communicator that is not there any more");
  State& state = *comm->state;
  if (!stream || ds_emulated_device(stream) != state.device)
    return group.error = refuse("a stream of another device than the communicator's");
  if (state.error != kNcclSuccess) return NcclResult(state.error.load());
  if (state.looks > 0) return group.error = refuse("a call while another one is in progress");
  auto op = std::make_unique<Operation>();
  op->comm = comm->state;
  build(*op, state);
  if (group.depth == 0) return submit(stream, std::move(op));
  // The calls of a group are one operation a stream, all at once.
  for (auto& [of, merged] : group.pending) {
    if (of != stream || merged->comm != op->comm) continue;
    if (op->before || op->after || merged->after)
      return group.error = refuse("a group of more than messages: this stand-in merges no others");
    for (auto& m : op->messages) merged->messages.push_back(m);
    return kNcclSuccess;
  }
  group.pending.emplace_back(stream, std::move(op));
  return kNcclSuccess;
}

char* bytes(const void* p) { return static_cast<char*>(const_cast<void*>(p)); }

template <class T>
void add_as(char* to, const char* from, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    T a, b;
    std::memcpy(&a, to + i * sizeof a, sizeof a);
    std::memcpy(&b, from + i * sizeof b, sizeof b);
    if constexpr (std::is_arithmetic_v<T>)
      a += b;
    else if constexpr (std::is_same_v<T, bf16>)
      a = to_bf16(to_float(a) + to_float(b));
    else
      a = to_f16(to_float(a) + to_float(b));
    std::memcpy(to + i * sizeof a, &a, sizeof a);
  }
}

void add(char* to, const char* from, size_t count, NcclType type) {
  if (type == kNcclFloat32) return add_as<float>(to, from, count);
  if (type == kNcclFloat64) return add_as<double>(to, from, count);
  if (type == kNcclBfloat16) return add_as<bf16>(to, from, count);
  add_as<f16>(to, from, count);
}

// Every rank's `count` elements from `piece(q)` of it, added up into `to`, the last rank's first.
void reduce(Operation& op, State& comm, const char* own, char* to, size_t count, NcclType type,
            const std::function<const char*(int)>& piece_for) {
  size_t n = count * size_of(type);
  auto parts = std::make_unique<std::vector<char>>(n * size_t(comm.ranks + 1));
  char* memory = parts->data();
  auto kept = memory + n * size_t(comm.ranks);  // ours, before `to` takes its place
  op.before = [=] { std::memcpy(kept, own, n); };
  for (int q = 0; q < comm.ranks; ++q) {
    if (q == comm.rank) continue;
    op.messages.push_back({q, true, bytes(piece_for(q)), n});
    op.messages.push_back({q, false, memory + n * size_t(q), n});
  }
  int rank = comm.rank, ranks = comm.ranks;
  op.after = [=] {
    auto part = [&](int q) { return q == rank ? kept : memory + n * size_t(q); };
    std::vector<char> total(part(ranks - 1), part(ranks - 1) + n);
    for (int q = ranks - 2; q >= 0; --q) add(total.data(), part(q), count, type);
    std::memcpy(to, total.data(), n);
  };
  op.memory.push_back(std::move(parts));
}

}  // namespace

DS_FAKE NcclResult ncclGetVersion(int* version) {
  *version = fault("version", 22703);
  return kNcclSuccess;
}

// The id names a file without a name that this process keeps open: nothing stays behind, however it ends.
DS_FAKE NcclResult ncclGetUniqueId(NcclId* id) {
  int fd = memfd_create("fake-nccl", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, sizeof(Shared)) != 0) return kNcclSystemError;
  std::snprintf(id->bytes, sizeof id->bytes, "/proc/%d/fd/%d", int(getpid()), fd);
  return kNcclSuccess;
}

DS_FAKE NcclResult ncclCommInitRankConfig(NcclComm** comm, int ranks, NcclId id, int rank, NcclConfig* config) {
  if (ranks < 1 || ranks > kMaxRanks || rank < 0 || rank >= ranks || config->magic != 0xcafebeef)
    return kNcclInvalidArgument;
  int fd = open(id.bytes, O_RDWR | O_CLOEXEC);
  void* p = fd < 0 ? MAP_FAILED : mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (p == MAP_FAILED) return kNcclSystemError;
  auto made = std::make_unique<NcclComm>();
  made->state = std::make_shared<State>();
  State& state = *made->state;
  state.shared = static_cast<Shared*>(p);
  state.rank = rank, state.ranks = ranks, state.device = ds_emulated_device(nullptr);
  state.shared->attached.fetch_add(1);
  *comm = made.release();
  std::lock_guard lock(live_mutex);
  live.insert(*comm);
  return kNcclInProgress;  // until all have come
}

DS_FAKE NcclResult ncclCommGetAsyncError(NcclComm* comm, NcclResult* error) {
  if (!is_live(comm)) return kNcclInvalidArgument;
  State& state = *comm->state;
  *error = NcclResult(state.error.load());
  if (*error != kNcclSuccess) return kNcclSuccess;
  if (state.shared->attached < uint32_t(state.ranks) || state.looks.fetch_sub(state.looks > 0) > 0)
    *error = kNcclInProgress;
  return kNcclSuccess;
}

DS_FAKE NcclResult ncclCommAbort(NcclComm* comm) {
  if (!is_live(comm)) return refuse("a communicator that is not there any more");
  State& state = *comm->state;
  state.dead = true;
  // With calls on their way, the others' will never end.
  if (state.done < state.issued) state.shared->aborted[state.rank] = 1;
  std::lock_guard lock(live_mutex);
  live.erase(comm);
  delete comm;
  return kNcclSuccess;
}

DS_FAKE const char* ncclGetErrorString(NcclResult result) {
  const char* names[] = {"no error",
                         "unhandled cuda error",
                         "unhandled system error",
                         "internal error",
                         "invalid argument",
                         "invalid usage",
                         "remote process exited or there was a network error",
                         "NCCL operation in progress"};
  return names[result];
}

DS_FAKE const char* ncclGetLastError(NcclComm*) {
  std::lock_guard lock(live_mutex);
  return last_error.c_str();
}

DS_FAKE NcclResult ncclGroupStart() {
  if (group.depth++ == 0) group.error = kNcclSuccess, group.pending.clear();
  return kNcclSuccess;
}

DS_FAKE NcclResult ncclGroupEnd() {
  if (group.depth == 0) return refuse("the end of a group that was not begun");
  if (--group.depth > 0) return kNcclSuccess;
  auto pending = std::move(group.pending);
  group.pending.clear();
  if (group.error != kNcclSuccess) return group.error;
  NcclResult result = kNcclSuccess;
  for (auto& [stream, op] : pending) result = submit(stream, std::move(op));
  return result;
}

DS_FAKE NcclResult ncclSend(const void* from, size_t count, NcclType type, int peer, NcclComm* comm, void* stream) {
  return call(comm, stream, [&](Operation& op, State&) {
    op.messages.push_back({peer, true, bytes(from), count * size_of(type)});
  });
}

DS_FAKE NcclResult ncclRecv(void* to, size_t count, NcclType type, int peer, NcclComm* comm, void* stream) {
  return call(comm, stream, [&](Operation& op, State&) {
    op.messages.push_back({peer, false, bytes(to), count * size_of(type)});
  });
}

DS_FAKE NcclResult ncclBroadcast(const void* from, void* to, size_t count, NcclType type, int root, NcclComm* comm,
                                 void* stream) {
  return call(comm, stream, [&](Operation& op, State& state) {
    size_t n = count * size_of(type);
    if (state.rank != root) return op.messages.push_back({root, false, bytes(to), n});
    for (int q = 0; q < state.ranks; ++q)
      if (q != root) op.messages.push_back({q, true, bytes(from), n});
    op.after = [=] { std::memmove(to, from, n); };
  });
}

DS_FAKE NcclResult ncclAllGather(const void* from, void* to, size_t count, NcclType type, NcclComm* comm,
                                 void* stream) {
  return call(comm, stream, [&](Operation& op, State& state) {
    size_t n = count * size_of(type);
    char* own = bytes(to) + size_t(state.rank) * n;
    op.before = [=] { std::memmove(own, from, n); };
    for (int q = 0; q < state.ranks; ++q) {
      if (q == state.rank) continue;
      op.messages.push_back({q, true, own, n});
      op.messages.push_back({q, false, bytes(to) + size_t(q) * n, n});
    }
  });
}

DS_FAKE NcclResult ncclAllReduce(const void* from, void* to, size_t count, NcclType type, int op_code, NcclComm* comm,
                                 void* stream) {
  if (op_code != kNcclSum || size_of(type) < 2) return kNcclInvalidArgument;
  return call(comm, stream, [&](Operation& op, State& state) {
    reduce(op, state, bytes(from), bytes(to), count, type, [&](int) { return bytes(from); });
  });
}

DS_FAKE NcclResult ncclReduceScatter(const void* from, void* to, size_t count, NcclType type, int op_code,
                                     NcclComm* comm, void* stream) {
  if (op_code != kNcclSum || size_of(type) < 2) return kNcclInvalidArgument;
  return call(comm, stream, [&](Operation& op, State& state) {
    size_t n = count * size_of(type);
    auto piece = [&](int q) { return bytes(from) + size_t(q) * n; };
    reduce(op, state, piece(state.rank), bytes(to), count, type, piece);
  });
}
