// Streams, the pool and the shared-memory collectives under ThreadSanitizer: ranks are threads over one mapping, so the
// sanitizer sees every access to it. Not part of the addon: CMakeLists.txt beside this file builds it.
// Exits 1 on a wrong result, 66 on a race.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "collectives/shm.h"
#include "runtime/pool.h"
#include "runtime/stream.h"

namespace ds {
namespace {

int failures = 0;

void expect(bool ok, const char* what, int rank) {
  if (ok) return;
  std::fprintf(stderr, "rank %d: %s\n", rank, what);
  ++failures;
}

Tensor tensor(float* data, int64_t n) {
  Tensor t;
  t.data = data, t.dims[0] = n, t.rank = 1, t.present = true;
  return t;
}

Collective collective(Primitive p, Tensor out, Tensor in, int peer = -1) {
  Collective op;
  op.primitive = p, op.out = out, op.in = in, op.peer = peer;
  return op;
}

float value(int rank, int64_t i, int step) { return float((rank + 1) * 3 + i % 17 + step); }

// One rank: computes on one stream with the pool, communicates on another, each waiting for the other's events.
void program(std::shared_ptr<Communicator> group, int steps, int64_t n) {
  int N = group->size(), r = group->rank();
  Account account;
  auto make = [&] { return std::make_shared<Stream>(int(DeviceKind::cpu), account); };
  auto compute = make(), wire = make();
  std::vector<float> x(size_t(n * N)), shard(static_cast<size_t>(n)), full(size_t(n * N));
  for (int step = 0; step < steps; ++step) {
    compute->enqueue([&, step] {
      parallel_ranges(n * N, 1024, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) x[size_t(i)] = value(r, i, step);
      });
    });
    wire->wait(compute, compute->record());
    wire->enqueue(
        group->prepare(collective(Primitive::reduce_scatter, tensor(shard.data(), n), tensor(x.data(), n * N))));
    // A call is over when nobody reads its tensors any more: writing them at once must be safe.
    wire->enqueue([&, step] {
      for (int64_t i = 0; i < n * N; ++i) x[size_t(i)] = -1;
      for (int64_t i = 0; i < n * N; ++i) x[size_t(i)] = value(r, i, step);
    });
    wire->enqueue(
        group->prepare(collective(Primitive::all_gather, tensor(full.data(), n * N), tensor(shard.data(), n))));
    wire->enqueue([&] { std::fill(shard.begin(), shard.end(), -1.0f); });
    wire->enqueue(group->prepare(collective(Primitive::all_reduce, tensor(x.data(), n * N), tensor(x.data(), n * N))));
    compute->wait(wire, wire->record());
    compute->enqueue([&, step] {
      std::atomic<int> wrong{0};
      parallel_ranges(n * N, 1024, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          float total = 0;
          for (int q = 0; q < N; ++q) total += value(q, i, step);
          if (full[size_t(i)] != total || x[size_t(i)] != total) ++wrong;
        }
      });
      expect(wrong == 0, "sums differ", r);
    });
    if (N > 1) {
      int to = (r + 1) % N, from = (r + N - 1) % N;
      auto out = collective(Primitive::send, Tensor{}, tensor(full.data(), n), to);
      auto in = collective(Primitive::recv, tensor(shard.data(), n), Tensor{}, from);
      // Even ranks send first: a message is over when it has been taken.
      bool first = r % 2 == 0 && r != N - 1;
      compute->enqueue(group->prepare(first ? out : in));
      compute->enqueue(group->prepare(first ? in : out));
    }
  }
  if (auto error = wire->join()) expect(false, error->what(), r);
  if (auto error = compute->join()) expect(false, error->what(), r);
}

void run_world(int N, Transport transport, int steps, int64_t n) {
  int fd = Segment::create(N);
  auto segment = Segment::map(fd);
  std::vector<std::thread> ranks;
  for (int r = 0; r < N; ++r)
    ranks.emplace_back([=] {
      ShmOptions options;
      options.transport = transport;
      options.chunk_bytes = 4096;
      auto group = ShmCommunicator::attach(segment, r, options);
      std::shared_ptr<HostCommunicator> part;
      group->prepare_split(r % 2, -r, &part)();
      program(group, steps, n);
      program(part, steps, n);
      group->prepare(collective(Primitive::barrier, {}, {}))();
    });
  for (auto& t : ranks) t.join();
}

// A rank that stays away: the others time out with one sentence; then a group that is aborted from outside.
void run_failures() {
  for (bool aborts : {false, true}) {
    int fd = Segment::create(3);
    auto segment = Segment::map(fd);
    close(fd);
    close(fd);
    std::vector<std::thread> ranks;
    std::vector<std::string> texts(3);
    for (int r = 0; r < 3; ++r)
      ranks.emplace_back([=, &texts] {
        ShmOptions options;
        options.timeout_ms = aborts ? 60000 : 300;
        auto group = ShmCommunicator::attach(segment, r, options);
        Collective barrier;
        try {
          group->prepare(barrier)();
          if (r == 2) {
            std::this_thread::sleep_for(std::chrono::milliseconds(aborts ? 200 : 700));
            if (aborts) group->abort("enough");
          }
          group->prepare(barrier)();
        } catch (const Error& error) {
          texts[size_t(r)] = error.code + " " + error.what();
        }
      });
    for (auto& t : ranks) t.join();
    const char* code = aborts ? "ABORTED" : "COMM_TIMEOUT";
    for (int r = 0; r < 3; ++r) expect(texts[size_t(r)].rfind(code, 0) == 0 && texts[size_t(r)] == texts[0], code, r);
  }
}

}  // namespace
}  // namespace ds

int main() {
  ds::Pool::shared().resize(3);
  for (auto transport : {ds::Transport::staged, ds::Transport::pulled})
    for (int N : {1, 2, 3, 4})
      for (int64_t n : {1, 1000, 40000}) ds::run_world(N, transport, n > 10000 ? 4 : 20, n);
  ds::run_failures();
  std::printf(ds::failures ? "%d failures\n" : "ok\n", ds::failures);
  return ds::failures ? 1 : 0;
}
