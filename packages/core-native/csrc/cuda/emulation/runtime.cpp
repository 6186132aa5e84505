#include "runtime.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../../runtime/error.h"

namespace ds::emulation {
namespace {

// Gives true when it is done; called again until it is. Throws ds::Error.
using Command = std::function<bool()>;

constexpr auto kBetweenTries = std::chrono::microseconds(20);

// Commands in order, run by whoever waits for them.
class Queue {
 public:
  uint64_t push(Command command) {
    std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
    return ++pushed_;
  }

  uint64_t pushed() {
    std::lock_guard lock(mutex_);
    return pushed_;
  }

  // Runs what is queued up to command number `ticket`; gives the queue's error, empty for none. After an error nothing
  // more runs. No lock is held meanwhile: a command may wait for another queue.
  std::string run_to(uint64_t ticket) {
    std::unique_lock lock(mutex_);
    while (done_ < ticket) {
      if (running_)
        changed_.wait(lock);
      else if (!run_one(lock))
        changed_.wait_for(lock, kBetweenTries);
    }
    return error_;
  }

  bool has_done(uint64_t ticket) {
    std::unique_lock lock(mutex_);
    if (done_ < ticket && !running_) run_one(lock);
    return done_ >= ticket;
  }

  // The same as run_to, as far as it goes without waiting for anybody.
  bool try_run_to(uint64_t ticket) {
    std::unique_lock lock(mutex_);
    while (done_ < ticket && !running_ && run_one(lock)) {
    }
    return done_ >= ticket;
  }

 private:
  // False when the first command is not done yet.
  bool run_one(std::unique_lock<std::mutex>& lock) {
    Command command = std::move(commands_.front());
    running_ = true;
    std::string error = error_;
    lock.unlock();
    bool done = true;
    if (error.empty()) {
      try {
        done = command();
      } catch (const Error& e) {
        error = e.op + ": " + e.actual;
      }
    }
    if (done) command = nullptr;
    lock.lock();
    error_ = error;
    running_ = false;
    if (done) {
      commands_.pop_front();
      ++done_;
    } else {
      commands_.front() = std::move(command);
    }
    changed_.notify_all();
    return done;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Command> commands_;
  uint64_t pushed_ = 0, done_ = 0;
  bool running_ = false;
  std::string error_;
};

using Clock = std::chrono::steady_clock;

DsCudaEmulation the_settings{2, int32_t(std::clamp(std::thread::hardware_concurrency(), 1u, 4u)), size_t(4) << 30, 0};

thread_local int current_device = 0;
thread_local std::string last_error;  // the text behind the last cudaErrorLaunchFailure of this thread

cudaError_t outcome(const std::string& error) {
  if (error.empty()) return cudaSuccess;
  last_error = error;
  return cudaErrorLaunchFailure;
}

}  // namespace

void configure(const DsCudaEmulation& settings) { the_settings = settings; }
const DsCudaEmulation& settings() { return the_settings; }

}  // namespace ds::emulation

using namespace ds::emulation;

// NVIDIA's opaque types are ours to define.
struct CUstream_st {
  int device;
  std::shared_ptr<Queue> queue = std::make_shared<Queue>();
  std::unique_ptr<std::vector<Command>> recording;
};

struct CUevent_st {
  std::shared_ptr<Queue> queue;
  uint64_t ticket = 0;
  std::shared_ptr<Clock::time_point> time;
};

struct CUgraph_st {
  std::vector<Command> commands;
};

struct CUgraphExec_st {
  std::vector<Command> commands;
};

namespace ds::emulation {
namespace {

cudaError_t enqueue_steps(cudaStream_t stream, Command command) {
  if (stream->recording)
    stream->recording->push_back(std::move(command));
  else
    stream->queue->push(std::move(command));
  return cudaSuccess;
}

template <class Body>
cudaError_t enqueue(cudaStream_t stream, Body body) {
  return enqueue_steps(stream, [body = std::move(body)] {
    body();
    return true;
  });
}

}  // namespace

cudaError_t launch(const Launch& launch, cudaStream_t stream, std::function<void()> thread) {
  auto none = [](dim3 d) { return d.x == 0 || d.y == 0 || d.z == 0; };
  size_t threads = size_t(launch.block.x) * launch.block.y * launch.block.z;
  if (none(launch.grid) || none(launch.block) || threads > 1024 || threads % 32 != 0 || launch.block.z > 64 ||
      launch.grid.x > 0x7fffffffu || launch.grid.y > 65535 || launch.grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (launch.shared_bytes > kSharedBytes) return cudaErrorInvalidValue;
  if (stream->device != current_device) return cudaErrorInvalidResourceHandle;
  return enqueue(stream, [launch, thread = std::move(thread)] { run_grid(launch, thread); });
}

}  // namespace ds::emulation

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorIllegalState:
      return "cudaErrorIllegalState";
    default:
      return "cudaErrorInvalidValue";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? last_error.c_str() : cudaGetErrorName(error);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "CUDA emulated on the CPU");
  properties->major = 9;
  properties->multiProcessorCount = 4;  // few, so that small tensors already make kernels stride
  properties->sharedMemPerBlockOptin = kSharedBytes;
  properties->totalGlobalMem = settings().total_memory;
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) {
  return posix_memalign(data, 4096, bytes) ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void* data) {
  std::free(data);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st{.device = current_device, .recording = nullptr};
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->recording) return cudaErrorStreamCaptureUnsupported;
  return outcome(stream->queue->run_to(stream->queue->pushed()));
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stream->queue->run_to(stream->queue->pushed());
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (stream->recording) return cudaErrorStreamCaptureUnsupported;
  auto time = std::make_shared<Clock::time_point>();
  event->queue = stream->queue;
  event->time = time;
  event->ticket = stream->queue->push([time] {
    *time = Clock::now();
    return true;
  });
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream->recording) return cudaErrorStreamCaptureUnsupported;
  if (!event->queue) return cudaSuccess;  // never recorded: nothing to wait for
  return enqueue_steps(stream, [queue = event->queue, ticket = event->ticket] {
    if (!queue->try_run_to(ticket)) return false;
    std::string error = queue->run_to(ticket);
    // On a real device an error ends every stream.
    if (!error.empty()) throw ds::Error("DEVICE", "the stream it waited for", "no error", error);
    return true;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->queue ? outcome(event->queue->run_to(event->ticket)) : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->queue && !event->queue->has_done(event->ticket)) return cudaErrorNotReady;
  return cudaEventSynchronize(event);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (cudaEvent_t event : {begin, end}) {
    if (!event->queue) return cudaErrorInvalidResourceHandle;
    if (!event->queue->has_done(event->ticket)) return cudaErrorNotReady;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *begin->time).count();
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return enqueue(stream, [=] { std::memmove(to, from, bytes); });
}

cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { std::memset(to, byte, bytes); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->recording) return cudaErrorIllegalState;
  stream->recording = std::make_unique<std::vector<Command>>();
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  static thread_local cudaStreamCaptureMode own = cudaStreamCaptureModeGlobal;
  std::swap(own, *mode);
  return cudaSuccess;
}

// Exported, for libraries that queue work on our streams.
__attribute__((visibility("default"))) cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function,
                                                                      void* data) {
  return enqueue(stream, [function, data] { function(data); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!stream->recording) return cudaErrorIllegalState;
  *graph = new CUgraph_st{std::move(*stream->recording)};
  stream->recording = nullptr;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->commands};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (auto& command : exec->commands) enqueue_steps(stream, command);
  return cudaSuccess;
}

__attribute__((visibility("default"))) int ds_emulated_enqueue(void* stream, int (*step)(void*), void (*drop)(void*),
                                                               void* state) {
  std::shared_ptr<void> held(state, drop);
  return enqueue_steps(static_cast<cudaStream_t>(stream), [step, held] { return step(held.get()) != 0; });
}

__attribute__((visibility("default"))) int ds_emulated_device(void* stream) {
  return stream ? static_cast<cudaStream_t>(stream)->device : current_device;
}

}  // extern "C"
