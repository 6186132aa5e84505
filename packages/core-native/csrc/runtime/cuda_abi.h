// What the addon and a CUDA library say to each other: the one header that both sides include.
//
// ds-core-cuda.so (nvcc) and ds-core-cuda-emulated.so (the same sources on the CPU) are opened at run time, so that the
// addon loads on machines without a driver. Both export `ds_cuda_library`. Every function returns 0, or 1 with *error
// filled; nothing throws across this boundary. Functions may be called from any thread, those of one stream by one
// thread at a time.
#pragma once
#include <stddef.h>
#include <stdint.h>

extern "C" {

// Raise it with every change below: the addon refuses a library of another version.
constexpr uint32_t kDsCudaAbiVersion = 3;

struct DsCudaError {
  char code[16], op[64], expected[256], actual[512], hint[256];  // the fields of ds::Error, cut to fit
};

struct DsCudaDevice {
  char name[256];
  int32_t major, minor;  // compute capability
  int32_t multiprocessors;
  size_t shared_memory_per_block;  // with opt-in
  size_t total_memory;
  size_t granule;  // commit and decommit take multiples of it
};

struct DsCudaStream;
struct DsCudaEvent;
struct DsCudaGraph;

// What a kernel found wrong in its data, such as a token id outside the vocabulary: the first one since the addon last
// cleared it. One a stream, in page-locked memory that the device writes and the addon reads after it has waited.
struct DsCudaFault {
  uint32_t raised;
  void (*describe)(const DsCudaFault* fault, DsCudaError* error);  // of the op that raised it, in the library
  int64_t numbers[4];                                              // for describe
};

// What a launcher may use beside its op. One a stream, kept by the addon.
struct DsCudaContext {
  DsCudaStream* stream;
  // Device memory for the one op that asks, at most once an op; null with *error filled where there is none. It is used
  // in the stream's order, so the same memory may serve the next op. It must stay where it is while a captured graph
  // that used it lives.
  void* (*scratch)(void* owner, size_t bytes, DsCudaError* error);
  void* owner;  // handed to scratch
  DsCudaFault* fault;
};

struct DsCudaKernel {
  const char* name;  // Op::name
  size_t op_bytes;   // sizeof(Op) as the library sees it: compare before the first launch
  // Queues the op, whose tensors lie on the stream's device. Never waits; may be captured.
  int (*launch)(const void* op, const DsCudaContext* context, DsCudaError* error);
};

struct DsCudaEmulation {
  int32_t devices;
  int32_t threads;      // that run the blocks of a grid
  size_t total_memory;  // of each device
  // The order in which the threads of a block run up to their next barrier: 0 first to last, 1 last to first, others
  // change from pass to pass. Results that depend on it lack a barrier.
  uint64_t order;
};

// Which library makes large matrix products.
struct DsCudaGemm {
  int32_t choice;  // 0: cuBLASLt where it is found and the faster one; 1: it, wherever it can; 2: our own kernels
  const char* const* paths;  // of cuBLASLt, for dlopen, in this order
  int32_t path_count;
};

struct DsCudaLibrary {
  uint32_t version;
  // Null in the real library. Sets what the emulated devices are; before the first use of one.
  int (*emulate)(const DsCudaEmulation* settings, DsCudaError* error);

  int (*device_count)(int* count, DsCudaError* error);  // 0 where there is no driver
  int (*device)(int device, DsCudaDevice* info, DsCudaError* error);
  int (*free_memory)(int device, size_t* bytes, DsCudaError* error);

  // Address space of one device, and memory behind parts of it. Nothing here waits for streams: decommit only what no
  // queued work uses. A commit that fails leaves what it had committed in place.
  int (*reserve)(int device, size_t bytes, void** base, DsCudaError* error);
  int (*unreserve)(int device, void* base, size_t bytes, DsCudaError* error);  // all of it decommitted before
  int (*commit)(int device, void* address, size_t bytes, DsCudaError* error);
  int (*decommit)(int device, void* address, size_t bytes, DsCudaError* error);

  int (*pinned_allocate)(size_t bytes, void** data, DsCudaError* error);
  int (*pinned_free)(void* data, DsCudaError* error);

  int (*stream_create)(int device, DsCudaStream** stream, DsCudaError* error);
  int (*stream_destroy)(DsCudaStream* stream, DsCudaError* error);
  int (*stream_synchronize)(DsCudaStream* stream, DsCudaError* error);
  void* (*stream_handle)(DsCudaStream* stream);  // the cudaStream_t, for NCCL and cuBLAS

  int (*event_create)(int device, DsCudaEvent** event, DsCudaError* error);
  int (*event_destroy)(DsCudaEvent* event, DsCudaError* error);
  int (*event_record)(DsCudaEvent* event, DsCudaStream* stream, DsCudaError* error);
  int (*event_wait)(DsCudaStream* stream, DsCudaEvent* event, DsCudaError* error);  // the stream waits, not the caller
  int (*event_synchronize)(DsCudaEvent* event, DsCudaError* error);
  int (*event_query)(DsCudaEvent* event, int* done, DsCudaError* error);
  int (*event_elapsed)(DsCudaEvent* begin, DsCudaEvent* end, float* milliseconds, DsCudaError* error);

  // Between host and device in either direction, and between devices. Asynchronous where the host memory is pinned.
  int (*copy)(DsCudaStream* stream, void* to, const void* from, size_t bytes, DsCudaError* error);

  // Between begin and end the stream records instead of running. A graph may be launched any number of times.
  int (*graph_begin)(DsCudaStream* stream, DsCudaError* error);
  int (*graph_end)(DsCudaStream* stream, DsCudaGraph** graph, DsCudaError* error);
  int (*graph_launch)(DsCudaGraph* graph, DsCudaStream* stream, DsCudaError* error);
  int (*graph_destroy)(DsCudaGraph* graph, DsCudaError* error);

  const DsCudaKernel* (*find_kernel)(const char* name);  // null where this library has none for the op

  // Before the first product, later only the same again; without it, our own kernels for all. cuBLASLt is opened when
  // it is first needed, which takes up to two seconds.
  int (*set_gemm)(const DsCudaGemm* settings, DsCudaError* error);
  // What makes large products: name, version and path, or what was tried in vain. Opens cuBLASLt if it must.
  int (*gemm_library)(char* text, size_t bytes, DsCudaError* error);
};

// The one exported symbol.
typedef const DsCudaLibrary* (*DsCudaLibraryFunction)();

}  // extern "C"
