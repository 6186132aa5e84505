#include "segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>
#include <vector>

namespace ds {
namespace {

constexpr uint64_t kMagic = 0x6473636f6d6d0001;  // "dscomm", layout 1
constexpr size_t kPage = 4096;
constexpr int kSlots = 4;

constexpr size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

struct ProcessRecord {
  std::atomic<int64_t> pid;
  std::atomic<uint64_t> start, space;
};

// Where the parts of a room lie. Rooms have one size, that of the whole world.
struct RoomLayout {
  size_t members, pairs, control, staging, total;
  explicit RoomLayout(int world) {
    members = pages(sizeof(Gate));
    pairs = members + pages(size_t(world) * sizeof(Member));
    control = pairs + pages(size_t(world) * size_t(world) * sizeof(Pair));
    staging = control;
    total = staging + size_t(world) * kSlots * Segment::kSlotBytes;
  }
};

int rooms_for(int world) { return world == 1 ? 8 : 16 + 4 * world; }

template <size_t N>
void copy_text(char (&to)[N], const std::string& from) {
  std::memset(to, 0, N);
  std::memcpy(to, from.data(), std::min(from.size(), N - 1));
}

Error system_error(const char* op, const char* what, const char* hint) {
  return Error("COMM", op, what, std::strerror(errno), hint);
}

}  // namespace

struct Segment::Header {
  std::atomic<uint64_t> magic;
  uint64_t world, rooms, room_bytes;
  std::atomic<uint32_t> failed;  // 0 no, 1 being written, 2 readable
  Published<FailureText> failure;
  ProcessRecord processes[kMaxRanks];
  std::atomic<uint32_t> users[16 + 4 * kMaxRanks];  // of each room: members + 1 while it is taken, 0 while it is free
};

static size_t segment_bytes(int world, size_t header) {
  return pages(header) + size_t(rooms_for(world)) * RoomLayout(world).total;
}

int Segment::create(int world) {
  if (world < 1 || world > kMaxRanks)
    throw Error("COMM", "create segment", "1 to 256 ranks on a host", std::to_string(world), "");
#if defined(__linux__)
  int fd = memfd_create("ds-collectives", MFD_CLOEXEC);
#else
  std::string name = "/ds-" + std::to_string(getpid()) + "-" + std::to_string(reinterpret_cast<uintptr_t>(&world) >> 4);
  int fd = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd >= 0) shm_unlink(name.c_str()), fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
  if (fd < 0) throw system_error("create segment", "shared memory for the ranks", "see ulimit -n and memory limits");
  size_t bytes = segment_bytes(world, sizeof(Header));
  void* p = MAP_FAILED;
  if (ftruncate(fd, off_t(bytes)) == 0)
    p = mmap(nullptr, pages(sizeof(Header)), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) {
    auto error = system_error("create segment", "shared memory for the ranks", "see the memory limits (ulimit -v)");
    close(fd);
    throw error;
  }
  auto& h = *static_cast<Header*>(p);
  h.world = uint64_t(world), h.rooms = uint64_t(rooms_for(world)), h.room_bytes = RoomLayout(world).total;
  h.users[0] = uint32_t(world) + 1;
  h.magic.store(kMagic, std::memory_order_release);
  munmap(p, pages(sizeof(Header)));
  return fd;
}

std::shared_ptr<Segment> Segment::map(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0)
    throw system_error("attach", "the descriptor of the job's shared memory",
                       "DS_COMM_FD must be inherited from the launcher");
  size_t bytes = size_t(info.st_size);
  void* p = bytes < sizeof(Header) ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED)
    throw Error("COMM", "attach", "the job's shared memory", "descriptor " + std::to_string(fd) + " of another kind",
                "DS_COMM_FD must be inherited from the launcher");
  std::shared_ptr<Segment> segment(new Segment(static_cast<char*>(p), bytes));
  auto& h = segment->header();
  if (h.magic.load(std::memory_order_acquire) != kMagic || h.world < 1 || h.world > kMaxRanks ||
      bytes != segment_bytes(int(h.world), sizeof(Header)))
    throw Error("COMM", "attach", "shared memory of this version", "another layout",
                "all ranks and the launcher must run one version of @ds/core-native");
  return segment;
}

std::shared_ptr<Segment> Segment::alone() {
  int fd = create(1);
  auto segment = map(fd);
  close(fd);
  return segment;
}

Segment::~Segment() { munmap(base_, bytes_); }

Segment::Header& Segment::header() const { return *reinterpret_cast<Header*>(base_); }
int Segment::world() const { return int(header().world); }

void Segment::take_place(int rank, const ProcessId& process) {
  if (rank < 0 || rank >= world())
    throw Error("COMM", "attach", "a rank below " + std::to_string(world()), std::to_string(rank), "see RANK");
  auto& record = header().processes[rank];
  record.start.store(process.start), record.space.store(process.space);
  int64_t nobody = 0;
  if (!record.pid.compare_exchange_strong(nobody, process.pid))
    throw Error("COMM", "attach", "each rank once", "rank " + std::to_string(rank) + " a second time",
                "every process needs a RANK of its own, and attaches once");
}

ProcessId Segment::process(int world_rank) const {
  auto& record = header().processes[world_rank];
  return {record.pid.load(), record.start.load(), record.space.load()};
}

char* Segment::room(int index) const { return base_ + pages(sizeof(Header)) + size_t(index) * header().room_bytes; }
Gate& Segment::gate(int index) const { return *reinterpret_cast<Gate*>(room(index)); }
Member& Segment::member(int index, int rank) const {
  return reinterpret_cast<Member*>(room(index) + RoomLayout(world()).members)[rank];
}
Pair& Segment::pair(int index, int from, int to) const {
  return reinterpret_cast<Pair*>(room(index) + RoomLayout(world()).pairs)[from * world() + to];
}
char* Segment::slot(int index, int rank, int slot) const {
  return room(index) + RoomLayout(world()).staging + size_t(rank * kSlots + slot) * kSlotBytes;
}

int Segment::take_room(int members) {
  auto& h = header();
  for (int i = 1; i < int(h.rooms); ++i) {
    uint32_t free = 0;
    if (h.users[i].compare_exchange_strong(free, uint32_t(members) + 1)) return i;
  }
  return -1;
}

void Segment::leave_room(int index) {
  auto& users = header().users[index];
  if (users.fetch_sub(1, std::memory_order_acq_rel) != 2) return;
  // Fresh rooms read as zero. The staging is given back to the system where it can be, and needs no zeroes.
  char* begin = room(index);
#if defined(MADV_REMOVE)
  madvise(begin, header().room_bytes, MADV_REMOVE);
#endif
  std::memset(begin, 0, RoomLayout(world()).control);
  users.store(0, std::memory_order_release);
}

Error Segment::fail(const Error& error) {
  auto& h = header();
  uint32_t none = 0;
  if (h.failed.compare_exchange_strong(none, 1)) {
    auto text = std::make_unique<FailureText>();
    copy_text(text->code, error.code), copy_text(text->op, error.op), copy_text(text->expected, error.expected);
    copy_text(text->actual, error.actual), copy_text(text->hint, error.hint);
    h.failure.store(*text);
    h.failed.store(2, std::memory_order_release);
  }
  return failure();
}

bool Segment::failed() const { return header().failed.load(std::memory_order_acquire) != 0; }

Error Segment::failure() const {
  auto& h = header();
  // Whoever writes the text takes microseconds, unless it was killed meanwhile.
  for (int i = 0; i < 200 && h.failed.load(std::memory_order_acquire) != 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (h.failed.load(std::memory_order_acquire) != 2)
    return Error("COMM", "collective", "every rank to be alive", "a rank that died while it reported an error", "");
  auto text = std::make_unique<FailureText>(h.failure.load());
  return Error(text->code, text->op, text->expected, text->actual, text->hint);
}

}  // namespace ds
