// The library's table: devices, memory, streams, events, copies, graphs and the launchers by name.
#include <cuda.h>

#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "context.h"
#include "cublaslt.h"

struct DsCudaEvent {
  int device;
  cudaEvent_t handle;
};

struct DsCudaGraph {
  cudaGraphExec_t handle;
};

namespace ds::cuda {
namespace {

// The driver's functions for virtual memory, found through the runtime: linking libcuda would keep the library from
// loading on machines without a driver.
struct Driver {
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) unreserve;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemSetAccess) set_access;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemGetAllocationGranularity) granularity;
  decltype(&cuGetErrorString) error_string;

  Driver() {
    find("cuMemAddressReserve", reserve);
    find("cuMemAddressFree", unreserve);
    find("cuMemCreate", create);
    find("cuMemRelease", release);
    find("cuMemMap", map);
    find("cuMemSetAccess", set_access);
    find("cuMemUnmap", unmap);
    find("cuMemGetAllocationGranularity", granularity);
    find("cuGetErrorString", error_string);
  }

 private:
  template <class Function>
  static void find(const char* name, Function& function) {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    cudaError_t status = cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result);
    if (status != cudaSuccess || result != cudaDriverEntryPointSuccess || !found)
      throw Error("DEVICE", "open CUDA", std::string("the driver's function ") + name, "a driver without it",
                  "install NVIDIA's driver, version 525 or later");
    function = reinterpret_cast<Function>(found);
  }
};

const Driver& driver() {
  static const Driver functions;
  return functions;
}

void check_driver(CUresult status, const char* op, const char* expected) {
  if (status == CUDA_SUCCESS) return;
  bool memory = status == CUDA_ERROR_OUT_OF_MEMORY;
  const char* text = "an unknown error";
  driver().error_string(status, &text);
  throw Error(memory ? "OOM" : "DEVICE", op, expected, text,
              memory ? "use a smaller batch, a higher ZeRO stage, or a device with more memory" : "please report it");
}

int count_devices() {
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  // Neither is a fault: the machine just has nothing to offer.
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) return 0;
  check(status, "count devices", "a number of CUDA devices");
  return count;
}

CUmemAllocationProp allocation_on(int device) {
  CUmemAllocationProp prop{};
  prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  prop.location.id = device;
  return prop;
}

DsCudaDevice ask_properties(int device) {
  cudaDeviceProp prop;
  check(cudaGetDeviceProperties(&prop, device), "cuda device", "the properties of the device");
  check(cudaSetDevice(device), "cuda device", "a usable device");  // makes the context that the driver's calls need
  DsCudaDevice info{};
  std::snprintf(info.name, sizeof info.name, "%s", prop.name);
  info.major = prop.major;
  info.minor = prop.minor;
  info.multiprocessors = prop.multiProcessorCount;
  info.shared_memory_per_block = prop.sharedMemPerBlockOptin;
  info.total_memory = prop.totalGlobalMem;
  auto allocation = allocation_on(device);
  check_driver(driver().granularity(&info.granule, &allocation, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED), "cuda device",
               "the granularity of its memory");
  return info;
}

void enter(int device) { check(cudaSetDevice(device), "cuda device", "a usable device"); }

int device_count(int* count, DsCudaError* error) {
  return guarded("count devices", error, [&] { *count = count_devices(); });
}

int device(int device, DsCudaDevice* info, DsCudaError* error) {
  return guarded("cuda device", error, [&] { *info = device_properties(device); });
}

int free_memory(int device, size_t* bytes, DsCudaError* error) {
  return guarded("free memory", error, [&] {
    enter(device);
    size_t total = 0;
    check(cudaMemGetInfo(bytes, &total), "free memory", "the free memory of the device");
  });
}

int reserve(int device, size_t bytes, void** base, DsCudaError* error) {
  return guarded("reserve", error, [&] {
    enter(device);
    CUdeviceptr address = 0;
    check_driver(driver().reserve(&address, bytes, 0, 0, 0), "reserve", "address space of the device");
    *base = reinterpret_cast<void*>(address);
  });
}

int unreserve(int device, void* base, size_t bytes, DsCudaError* error) {
  return guarded("unreserve", error, [&] {
    enter(device);
    check_driver(driver().unreserve(reinterpret_cast<CUdeviceptr>(base), bytes), "unreserve", "a whole reservation");
  });
}

// One mapping a granule, because only whole mappings can be taken away again.
int commit(int device, void* address, size_t bytes, DsCudaError* error) {
  return guarded("allocate", error, [&] {
    size_t granule = device_properties(device).granule;
    enter(device);
    auto allocation = allocation_on(device);
    CUmemAccessDesc access{allocation.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    auto base = reinterpret_cast<CUdeviceptr>(address);
    for (size_t at = 0; at < bytes; at += granule) {
      CUmemGenericAllocationHandle handle;
      check_driver(driver().create(&handle, granule, &allocation, 0), "allocate", "memory of the device");
      CUresult mapped = driver().map(base + at, granule, 0, handle, 0);
      driver().release(handle);  // the mapping keeps the memory
      check_driver(mapped, "allocate", "a part of a reservation that is not yet committed");
    }
    check_driver(driver().set_access(base, bytes, &access, 1), "allocate", "access to the new memory");
  });
}

int decommit(int device, void* address, size_t bytes, DsCudaError* error) {
  return guarded("decommit", error, [&] {
    enter(device);
    check_driver(driver().unmap(reinterpret_cast<CUdeviceptr>(address), bytes), "decommit", "committed memory");
  });
}

int pinned_allocate(size_t bytes, void** data, DsCudaError* error) {
  return guarded("allocate pinned", error, [&] {
    check(cudaHostAlloc(data, bytes, cudaHostAllocPortable), "allocate pinned", "page-locked memory of the host");
  });
}

int pinned_free(void* data, DsCudaError* error) {
  return guarded("free pinned", error, [&] { check(cudaFreeHost(data), "free pinned", "page-locked memory"); });
}

int stream_create(int device, DsCudaStream** stream, DsCudaError* error) {
  return guarded("create stream", error, [&] {
    enter(device);
    auto made = std::make_unique<DsCudaStream>(DsCudaStream{device, nullptr});
    check(cudaStreamCreateWithFlags(&made->handle, cudaStreamNonBlocking), "create stream", "a stream");
    *stream = made.release();
  });
}

int stream_destroy(DsCudaStream* stream, DsCudaError* error) {
  return guarded("destroy stream", error, [&] {
    std::unique_ptr<DsCudaStream> owned(stream);
    enter(stream->device);
    check(cudaStreamDestroy(stream->handle), "destroy stream", "a stream");
  });
}

int stream_synchronize(DsCudaStream* stream, DsCudaError* error) {
  return guarded("join", error, [&] {
    enter(stream->device);
    check(cudaStreamSynchronize(stream->handle), "join", "every op of the stream to succeed");
  });
}

void* stream_handle(DsCudaStream* stream) { return stream->handle; }

int event_create(int device, DsCudaEvent** event, DsCudaError* error) {
  return guarded("create event", error, [&] {
    enter(device);
    auto made = std::make_unique<DsCudaEvent>(DsCudaEvent{device, nullptr});
    check(cudaEventCreateWithFlags(&made->handle, cudaEventDefault), "create event", "an event");
    *event = made.release();
  });
}

int event_destroy(DsCudaEvent* event, DsCudaError* error) {
  return guarded("destroy event", error, [&] {
    std::unique_ptr<DsCudaEvent> owned(event);
    check(cudaEventDestroy(event->handle), "destroy event", "an event");
  });
}

int event_record(DsCudaEvent* event, DsCudaStream* stream, DsCudaError* error) {
  return guarded("record event", error, [&] {
    enter(stream->device);
    check(cudaEventRecord(event->handle, stream->handle), "record event", "a stream of the event's device");
  });
}

int event_wait(DsCudaStream* stream, DsCudaEvent* event, DsCudaError* error) {
  return guarded("wait for event", error, [&] {
    enter(stream->device);
    check(cudaStreamWaitEvent(stream->handle, event->handle, 0), "wait for event", "a stream and an event");
  });
}

int event_synchronize(DsCudaEvent* event, DsCudaError* error) {
  return guarded("join", error,
                 [&] { check(cudaEventSynchronize(event->handle), "join", "every op before the event to succeed"); });
}

int event_query(DsCudaEvent* event, int* done, DsCudaError* error) {
  return guarded("query event", error, [&] {
    cudaError_t status = cudaEventQuery(event->handle);
    *done = status != cudaErrorNotReady;
    if (*done) check(status, "query event", "every op before the event to succeed");
  });
}

int event_elapsed(DsCudaEvent* begin, DsCudaEvent* end, float* milliseconds, DsCudaError* error) {
  return guarded("time between events", error, [&] {
    check(cudaEventElapsedTime(milliseconds, begin->handle, end->handle), "time between events",
          "two events of one device that have happened");
  });
}

int copy(DsCudaStream* stream, void* to, const void* from, size_t bytes, DsCudaError* error) {
  return guarded("copy", error, [&] {
    if (bytes == 0) return;
    enter(stream->device);
    // Addresses are unique over host and devices: the runtime sees the direction.
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream->handle), "copy", "two readable ranges of bytes");
  });
}

int graph_begin(DsCudaStream* stream, DsCudaError* error) {
  return guarded("begin graph", error, [&] {
    enter(stream->device);
    check(cudaStreamBeginCapture(stream->handle, cudaStreamCaptureModeThreadLocal), "begin graph",
          "a stream that is not recording");
  });
}

int graph_end(DsCudaStream* stream, DsCudaGraph** graph, DsCudaError* error) {
  return guarded("end graph", error, [&] {
    enter(stream->device);
    cudaGraph_t recorded = nullptr;
    check(cudaStreamEndCapture(stream->handle, &recorded), "end graph", "a stream that is recording");
    auto made = std::make_unique<DsCudaGraph>();
    cudaError_t status = cudaGraphInstantiate(&made->handle, recorded, 0);
    cudaGraphDestroy(recorded);
    check(status, "end graph", "a recording that can run");
    *graph = made.release();
  });
}

int graph_launch(DsCudaGraph* graph, DsCudaStream* stream, DsCudaError* error) {
  return guarded("launch graph", error, [&] {
    enter(stream->device);
    check(cudaGraphLaunch(graph->handle, stream->handle), "launch graph", "a graph and a stream");
  });
}

int graph_destroy(DsCudaGraph* graph, DsCudaError* error) {
  return guarded("destroy graph", error, [&] {
    std::unique_ptr<DsCudaGraph> owned(graph);
    check(cudaGraphExecDestroy(graph->handle), "destroy graph", "a graph");
  });
}

const DsCudaKernel* find_kernel(const char* name) {
  for (auto* r = Registration::first; r; r = r->next)
    if (std::strcmp(r->name, name) == 0) return r;
  return nullptr;
}

int set_gemm(const DsCudaGemm* settings, DsCudaError* error) {
  return guarded("configure products", error, [&] { configure_gemm(*settings); });
}

int gemm_library(char* text, size_t bytes, DsCudaError* error) {
  return guarded("describe products", error, [&] { std::snprintf(text, bytes, "%s", describe_gemm().c_str()); });
}

#ifdef DS_CUDA_EMU
int emulate(const DsCudaEmulation* settings, DsCudaError* error) {
  return guarded("emulate", error, [&] {
    if (settings->devices < 0 || settings->devices > emulation::kMaxDevices || settings->threads < 1)
      throw Error("CONFIG", "emulate", "0 to 16 devices and at least one thread",
                  std::to_string(settings->devices) + " and " + std::to_string(settings->threads));
    emulation::configure(*settings);
  });
}
#else
constexpr auto emulate = nullptr;
#endif

constexpr DsCudaLibrary kLibrary{
    kDsCudaAbiVersion,
    emulate,  //
    device_count,
    device,
    free_memory,  //
    reserve,
    unreserve,
    commit,
    decommit,  //
    pinned_allocate,
    pinned_free,  //
    stream_create,
    stream_destroy,
    stream_synchronize,
    stream_handle,  //
    event_create,
    event_destroy,
    event_record,
    event_wait,
    event_synchronize,  //
    event_query,
    event_elapsed,  //
    copy,
    graph_begin,
    graph_end,
    graph_launch,
    graph_destroy,  //
    find_kernel,
    set_gemm,
    gemm_library,
};

}  // namespace

const DsCudaDevice& device_properties(int device) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<DsCudaDevice>> known;
  std::lock_guard lock(mutex);
  if (device < 0 || device >= count_devices())
    throw Error("DEVICE", "cuda device", "one of " + std::to_string(count_devices()) + " CUDA devices",
                "cuda:" + std::to_string(device), "see CUDA_VISIBLE_DEVICES");
  if (known.size() <= size_t(device)) known.resize(size_t(device) + 1);
  if (!known[size_t(device)]) known[size_t(device)] = std::make_unique<DsCudaDevice>(ask_properties(device));
  return *known[size_t(device)];
}

}  // namespace ds::cuda

extern "C" __attribute__((visibility("default"))) const DsCudaLibrary* ds_cuda_library() { return &ds::cuda::kLibrary; }
