#include "rendezvous.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../runtime/error.h"
#include "segment.h"

namespace ds {
namespace {

constexpr uint32_t kMagic = 0x64736d31;  // "dsm1"
constexpr auto kRetry = std::chrono::milliseconds(10);
constexpr int kPatienceMs = 1000;  // with one that connects and says nothing

struct Hello {
  uint32_t magic;
  int32_t rank, world;
};
enum class Answer : int32_t { welcome = 0, other_world = 1, taken = 2 };

using Clock = std::chrono::steady_clock;

// How long a rank waits for the others, and how much of that is left.
struct Patience {
  int64_t timeout_ms;
  Clock::time_point end;
  const std::atomic<bool>& cancelled;

  // At most a tenth of a second, so that a cancellation is seen soon.
  int64_t next_ms() const {
    if (cancelled) throw Error("ABORTED", "rendezvous", "a group that is still wanted", "one that was given up", "");
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    return left < 100 ? left : 100;
  }
};

struct Descriptor {
  int fd;
  explicit Descriptor(int fd) : fd(fd) {}
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  int release() {
    int out = fd;
    fd = -1;
    return out;
  }
};

struct Address {
  sockaddr_un name{};
  socklen_t size = 0;
  explicit Address(const std::string& session) {
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (unsigned char c : session) hash = (hash ^ c) * 0x100000001b3u;
    char text[64];
    std::snprintf(text, sizeof text, "ds-collectives-%u-%016llx", unsigned(getuid()),
                  static_cast<unsigned long long>(hash));
    name.sun_family = AF_UNIX;
#if defined(__linux__)
    std::strcpy(name.sun_path + 1, text);  // a leading zero: an address, not a file
    size = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + std::strlen(text));
#else
    std::snprintf(name.sun_path, sizeof name.sun_path, "/tmp/%s", text);
    size = socklen_t(sizeof name);
#endif
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&name); }
};

Error failure(const char* expected, const std::string& actual, const char* hint) {
  return Error("COMM", "rendezvous", expected, actual, hint);
}

int make_socket() {
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) throw failure("a socket", std::strerror(errno), "see ulimit -n");
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

bool wait_readable(int fd, int64_t ms) {
  pollfd p{fd, POLLIN, 0};
  return poll(&p, 1, int(ms < 0 ? 0 : ms)) > 0;
}

bool same_user(int fd) {
#if defined(__linux__)
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == getuid();
#else
  uid_t uid;
  gid_t gid;
  return getpeereid(fd, &uid, &gid) == 0 && uid == getuid();
#endif
}

// Room for one descriptor beside a message.
union Ancillary {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int))];
};

#if !defined(MSG_NOSIGNAL)
#define MSG_NOSIGNAL 0
#endif

bool reply(int fd, Answer answer, int descriptor) {
  iovec data{&answer, sizeof answer};
  Ancillary space{};
  msghdr message{};
  message.msg_iov = &data, message.msg_iovlen = 1;
  if (answer == Answer::welcome) {
    message.msg_control = space.bytes, message.msg_controllen = sizeof space.bytes;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), &descriptor, sizeof descriptor);
  }
  return sendmsg(fd, &message, MSG_NOSIGNAL) == sizeof answer;
}

std::string missing_ranks(const std::vector<bool>& served) {
  std::string text;
  for (size_t i = 0; i < served.size(); ++i)
    if (!served[i]) text += (text.empty() ? "rank " : ", ") + std::to_string(i);
  return text;
}

constexpr const char* kHostHint =
    "ranks must run on one host, start within the time, and agree on the session (DS_SESSION, or MASTER_ADDR and "
    "MASTER_PORT)";

// Rank 0: serves every other rank once.
int serve(const Address& address, int world, const Patience& patience) {
  Descriptor listener(make_socket()), segment(Segment::create(world));
#if !defined(__linux__)
  unlink(address.name.sun_path);
#endif
  if (bind(listener.fd, address.get(), address.size) != 0 || listen(listener.fd, world) != 0)
    throw failure("to be the only rank 0 of the session", std::strerror(errno),
                  "another job uses this session: set DS_SESSION, or another MASTER_PORT");
  std::vector<bool> served(size_t(world), false);
  served[0] = true;
  for (int left = world - 1; left > 0;) {
    auto ms = patience.next_ms();
    if (ms <= 0)
      throw Error("COMM_TIMEOUT", "rendezvous", "all ranks within " + std::to_string(patience.timeout_ms) + " ms",
                  "nothing from " + missing_ranks(served), kHostHint);
    if (!wait_readable(listener.fd, ms)) continue;
    Descriptor peer(accept(listener.fd, nullptr, nullptr));
    Hello hello{};
    if (peer.fd < 0 || !same_user(peer.fd) || !wait_readable(peer.fd, kPatienceMs)) continue;
    if (recv(peer.fd, &hello, sizeof hello, 0) != sizeof hello || hello.magic != kMagic) continue;
    if (hello.world != world || hello.rank < 1 || hello.rank >= world) {
      reply(peer.fd, Answer::other_world, -1);
      throw failure(
          "one world size on all ranks",
          std::to_string(world) + " here and rank " + std::to_string(hello.rank) + " of " + std::to_string(hello.world),
          "see WORLD_SIZE, or another job uses this session");
    }
    if (served[size_t(hello.rank)]) {
      reply(peer.fd, Answer::taken, -1);
      continue;
    }
    if (!reply(peer.fd, Answer::welcome, segment.fd)) continue;
    served[size_t(hello.rank)] = true;
    --left;
  }
#if !defined(__linux__)
  unlink(address.name.sun_path);
#endif
  return segment.release();
}

// Sends our hello and waits for the answer. -1: nobody is there yet.
int ask_once(const Address& address, int rank, int world, const Patience& patience) {
  Descriptor server(make_socket());
  Hello hello{kMagic, rank, world};
  if (connect(server.fd, address.get(), address.size) != 0 || !same_user(server.fd) ||
      send(server.fd, &hello, sizeof hello, MSG_NOSIGNAL) != sizeof hello)
    return -1;
  // Rank 0 may be at another rank's turn.
  for (int64_t ms; !wait_readable(server.fd, ms = patience.next_ms());)
    if (ms <= 0) return -1;
  Answer answer{};
  iovec data{&answer, sizeof answer};
  Ancillary space{};
  msghdr message{};
  message.msg_iov = &data, message.msg_iovlen = 1;
  message.msg_control = space.bytes, message.msg_controllen = sizeof space.bytes;
  if (recvmsg(server.fd, &message, 0) != sizeof answer) return -1;
  if (answer == Answer::taken)
    throw failure("each rank once", "rank " + std::to_string(rank) + " a second time", "see RANK");
  if (answer == Answer::other_world)
    throw failure("one world size on all ranks", std::to_string(world) + " here, another at rank 0", "see WORLD_SIZE");
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (!head || head->cmsg_type != SCM_RIGHTS) return -1;
  int fd;
  std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return fd;
}

int ask(const Address& address, int rank, int world, const Patience& patience) {
  while (true) {
    int fd = ask_once(address, rank, world, patience);
    if (fd >= 0) return fd;
    if (patience.next_ms() <= 0)
      throw Error("COMM_TIMEOUT", "rendezvous", "rank 0 within " + std::to_string(patience.timeout_ms) + " ms",
                  "no answer", kHostHint);
    std::this_thread::sleep_for(kRetry);
  }
}

}  // namespace

int meet_at(const std::string& session, int rank, int world, int64_t timeout_ms, const std::atomic<bool>& cancelled) {
  Address address(session);
  Patience patience{timeout_ms, Clock::now() + std::chrono::milliseconds(timeout_ms), cancelled};
  return rank == 0 ? serve(address, world, patience) : ask(address, rank, world, patience);
}

}  // namespace ds
