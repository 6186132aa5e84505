// The emulated runtime behind the library's table: streams, events, graphs, memory.
#include <string>
#include <vector>

#include "cuda/launch.cuh"
#include "fixture.h"

namespace ds::cuda {
namespace {

__global__ void some_wait(int) {
  if (threadIdx.x < 40) __syncthreads();
}

__global__ void add(float* x, float by) {
  if (threadIdx.x == 0) x[0] += by;
}
__global__ void times(float* x, float by) {
  if (threadIdx.x == 0) x[0] *= by;
}

void streams() {
  Fixture f;
  auto& library = f.library;
  DsCudaError error;
  auto context = f.op();
  float x = 1;
  DS_LAUNCH(add, 1, 32, 0, context, &x, 2.0f);
  expect(x == 1, "a stream runs nothing before somebody waits");
  expect(f.join().empty() && x == 3, "and all of it then");

  DsCudaStream* other = nullptr;
  library.stream_create(0, &other, &error);
  DsCudaContext other_context{other, nullptr, nullptr, nullptr};
  CudaContext second("test", other_context);
  DsCudaEvent *event = nullptr, *late = nullptr;
  library.event_create(0, &event, &error);
  library.event_create(0, &late, &error);
  DS_LAUNCH(add, 1, 32, 0, context, &x, 1.0f);
  DS_LAUNCH(times, 1, 32, 0, second, &x, 10.0f);
  library.stream_synchronize(other, &error);
  expect(x == 30, "a stream that does not wait overtakes", std::to_string(x));
  f.join();
  expect(x == 31, "the other comes later");

  DS_LAUNCH(add, 1, 32, 0, context, &x, 1.0f);
  library.event_record(event, f.stream, &error);
  DS_LAUNCH(add, 1, 32, 0, context, &x, 100.0f);
  library.event_wait(other, event, &error);
  DS_LAUNCH(times, 1, 32, 0, second, &x, 10.0f);
  library.event_record(late, other, &error);
  library.stream_synchronize(other, &error);
  expect(x == 320, "a stream that waits for an event comes behind it, and not behind what follows", std::to_string(x));
  f.join();
  float milliseconds = -1;
  expect(library.event_elapsed(event, late, &milliseconds, &error) == 0 && milliseconds >= 0, "time between events");

  DS_LAUNCH(add, 1, 32, 0, context, &x, 1.0f);
  library.event_record(event, f.stream, &error);
  int done = 1, queries = 0;
  library.event_query(event, &done, &error);
  expect(!done, "an event is not done at once");
  while (!done && ++queries < 10) library.event_query(event, &done, &error);
  expect(done && x == 421, "queries get there");

  std::vector<float> from(1000, 5), to(1000);
  library.copy(f.stream, to.data(), from.data(), 4000, &error);
  expect(to[999] == 0, "a copy is queued");
  library.event_record(event, f.stream, &error);
  library.event_synchronize(event, &error);
  expect(to[999] == 5, "and done at the event");

  // An error stays with its stream and reaches whoever waits for it.
  DS_LAUNCH(some_wait, 1, 64, 0, context, 0);
  DS_LAUNCH(add, 1, 32, 0, context, &x, 1000.0f);
  library.event_record(event, f.stream, &error);
  library.event_wait(other, event, &error);
  DS_LAUNCH(add, 1, 32, 0, second, &x, 1000.0f);
  expect(library.stream_synchronize(other, &error) == 1 && std::string(error.code) == "DEVICE",
         "an error passes through an event");
  expect(!f.join().empty() && !f.join().empty() && x == 421, "and nothing runs behind it", std::to_string(x));
  library.event_destroy(event, &error);
  library.event_destroy(late, &error);
  library.stream_destroy(other, &error);
}

void graphs() {
  Fixture f;
  DsCudaError error;
  auto context = f.op();
  float x = 1;
  DsCudaGraph* graph = nullptr;
  expect(f.library.graph_end(f.stream, &graph, &error) == 1, "no end without a begin");
  f.library.graph_begin(f.stream, &error);
  DS_LAUNCH(add, 1, 32, 0, context, &x, 1.0f);
  DS_LAUNCH(times, 1, 32, 0, context, &x, 2.0f);
  expect(f.library.stream_synchronize(f.stream, &error) == 1, "a recording stream cannot be joined");
  expect(f.library.graph_end(f.stream, &graph, &error) == 0, "a recording ends");
  f.join();
  expect(x == 1, "a recording does not run");
  for (int i = 0; i < 3; ++i) f.library.graph_launch(graph, f.stream, &error);
  f.join();
  expect(x == 22, "a graph runs as often as it is launched", std::to_string(x));
  f.library.graph_destroy(graph, &error);
}

void memory() {
  Fixture f;
  auto& library = f.library;
  DsCudaError error;
  DsCudaDevice info;
  expect(library.device(1, &info, &error) == 0 && info.granule == 2 << 20, "the second device");
  expect(library.device(2, &info, &error) == 1 && std::string(error.code) == "DEVICE", "no third device");
  void* base = nullptr;
  size_t granule = info.granule, free = 0, all = 64 << 20;
  expect(library.reserve(1, all * 4, &base, &error) == 0, "address space beyond the memory");
  char* bytes = static_cast<char*>(base);
  expect(library.commit(1, bytes + granule, 2 * granule, &error) == 0, "memory in the middle");
  bytes[granule] = bytes[3 * granule - 1] = 7;
  library.free_memory(1, &free, &error);
  expect(free == all - 2 * granule, "it is counted");
  library.free_memory(0, &free, &error);
  expect(free == all, "on its own device");
  expect(library.commit(1, bytes + granule, granule, &error) == 1, "not twice");
  expect(library.unreserve(1, base, all * 4, &error) == 1, "address space in use stays");
  expect(library.decommit(1, bytes + 2 * granule, granule, &error) == 0 && bytes[granule] == 7, "a part goes back");
  expect(library.commit(1, bytes + 4 * granule, all, &error) == 1 && std::string(error.code) == "OOM",
         "no more than there is", error.code);
  library.free_memory(1, &free, &error);
  expect(free == 0, "what was committed before the failure stays", std::to_string(free));
  library.decommit(1, bytes + 4 * granule, all - granule, &error);
  library.decommit(1, bytes + granule, granule, &error);
  library.free_memory(1, &free, &error);
  expect(free == all, "all of it comes back", std::to_string(free));
  expect(library.unreserve(1, base, all * 4, &error) == 0, "and the address space");
}

void scratch() {
  Fixture f;
  static std::vector<char> block(64);
  static int asked;
  asked = 0;
  f.context.scratch = [](void*, size_t bytes, DsCudaError* error) -> void* {
    ++asked;
    if (bytes <= block.size()) return block.data();
    std::snprintf(error->code, sizeof error->code, "OOM");
    return nullptr;
  };
  auto context = f.op();
  expect(context.scratch<float>(0) == nullptr && asked == 0, "no elements, no memory");
  expect(context.scratch<float>(16) == static_cast<void*>(block.data()), "scratch memory");
  std::string code;
  try {
    context.scratch<float>(1);
  } catch (const Error& e) {
    code = e.code;
  }
  expect(code == "INTERNAL" && asked == 1, "asked for once", code);
  auto large = f.op();
  try {
    large.scratch<float>(17);
  } catch (const Error& e) {
    code = e.code;
  }
  expect(code == "OOM", "the addon's refusal reaches the op", code);
}

__global__ void no_negatives(const int* x, FaultReport report) {
  int i = int(threadIdx.x);
  if (x[i] < 0) raise_fault(report, x[i], i);
}

void faults() {
  Fixture f;
  auto context = f.op();
  auto report = context.fault([](const int64_t* numbers) {
    return Error("SHAPE", "test", "no negatives", std::to_string(numbers[0]) + " at " + std::to_string(numbers[1]));
  });
  std::vector<int> x(64, 1);
  DS_LAUNCH(no_negatives, 1, 64, 0, context, x.data(), report);
  f.join();
  expect(!f.fault.raised, "no fault, no report");
  x[40] = -3;
  DS_LAUNCH(no_negatives, 1, 64, 0, context, x.data(), report);
  expect(f.join().empty() && f.fault.raised, "a fault does not end the stream");
  x[40] = 1, x[50] = -4;
  DS_LAUNCH(no_negatives, 1, 64, 0, context, x.data(), report);
  f.join();
  DsCudaError error{};
  f.fault.describe(&f.fault, &error);
  expect(std::string(error.actual) == "-3 at 40", "the first fault is the one that is told", error.actual);
}

}  // namespace

void test_streams_and_memory() {
  streams();
  graphs();
  memory();
  scratch();
  faults();
}

}  // namespace ds::cuda
