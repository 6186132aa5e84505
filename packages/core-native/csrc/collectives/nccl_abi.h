// The part of NCCL's interface that we use, declared anew: the library is opened at run time, and nothing of it is
// needed to build. Values are those of NVIDIA's NCCL 2.14 and later (NCCL user guide, "NCCL API"; config of 2.14).
#pragma once
#include <cstddef>

namespace ds {

struct NcclComm;  // opaque

struct NcclId {
  char bytes[128];
};

enum NcclResult : int {
  kNcclSuccess = 0,
  kNcclUnhandledCudaError = 1,
  kNcclSystemError = 2,
  kNcclInternalError = 3,
  kNcclInvalidArgument = 4,
  kNcclInvalidUsage = 5,
  kNcclRemoteError = 6,
  kNcclInProgress = 7,
};

enum NcclType : int { kNcclUint8 = 1, kNcclFloat16 = 6, kNcclFloat32 = 7, kNcclFloat64 = 8, kNcclBfloat16 = 9 };

constexpr int kNcclSum = 0;
constexpr int kOldestNccl = 21400;  // the first whose communicators need not block

// NCCL takes from a config what its version had, and the default for the rest.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned magic = 0xcafebeef;
  unsigned version = kOldestNccl;
  int blocking = 0;
};

// The functions by their names without `nccl`. Streams are CUDA's.
struct NcclFunctions {
  NcclResult (*GetVersion)(int* version);
  NcclResult (*GetUniqueId)(NcclId* id);
  NcclResult (*CommInitRankConfig)(NcclComm** comm, int ranks, NcclId id, int rank, NcclConfig* config);
  NcclResult (*CommGetAsyncError)(NcclComm* comm, NcclResult* error);
  NcclResult (*CommAbort)(NcclComm* comm);
  const char* (*GetErrorString)(NcclResult result);
  const char* (*GetLastError)(NcclComm* comm);
  NcclResult (*GroupStart)();
  NcclResult (*GroupEnd)();
  NcclResult (*Send)(const void* from, size_t count, NcclType type, int peer, NcclComm* comm, void* stream);
  NcclResult (*Recv)(void* to, size_t count, NcclType type, int peer, NcclComm* comm, void* stream);
  NcclResult (*Broadcast)(const void* from, void* to, size_t count, NcclType type, int root, NcclComm* comm,
                          void* stream);
  NcclResult (*AllGather)(const void* from, void* to, size_t count_of_a_rank, NcclType type, NcclComm* comm,
                          void* stream);
  NcclResult (*AllReduce)(const void* from, void* to, size_t count, NcclType type, int op, NcclComm* comm,
                          void* stream);
  NcclResult (*ReduceScatter)(const void* from, void* to, size_t count_of_a_rank, NcclType type, int op, NcclComm* comm,
                              void* stream);
};

}  // namespace ds
