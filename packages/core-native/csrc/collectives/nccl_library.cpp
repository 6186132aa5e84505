#include "nccl_library.h"

#include <dlfcn.h>

#include <mutex>

#include "../runtime/error.h"

namespace ds {
namespace {

std::mutex mutex;

// Never destroyed: the watcher's thread may run until the process has ended.
NcclLibrary& opened() {
  static auto* library = new NcclLibrary;
  return *library;
}

// Gives the first function that is missing; null when all are there.
const char* find_functions(void* handle, NcclFunctions& f) {
  const char* missing = nullptr;
  auto find = [&](const char* name, auto& function) {
    void* symbol = dlsym(handle, name);
    if (!symbol && !missing) missing = name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  find("ncclGetVersion", f.GetVersion);
  find("ncclGetUniqueId", f.GetUniqueId);
  find("ncclCommInitRankConfig", f.CommInitRankConfig);
  find("ncclCommGetAsyncError", f.CommGetAsyncError);
  find("ncclCommAbort", f.CommAbort);
  find("ncclGetErrorString", f.GetErrorString);
  find("ncclGetLastError", f.GetLastError);
  find("ncclGroupStart", f.GroupStart);
  find("ncclGroupEnd", f.GroupEnd);
  find("ncclSend", f.Send);
  find("ncclRecv", f.Recv);
  find("ncclBroadcast", f.Broadcast);
  find("ncclAllGather", f.AllGather);
  find("ncclAllReduce", f.AllReduce);
  find("ncclReduceScatter", f.ReduceScatter);
  return missing;
}

// Empty when the library could be taken.
std::string problem_of(const std::string& path, NcclLibrary& library) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return dlerror();
  if (const char* missing = find_functions(handle, library.functions))
    return std::string("it has no ") + missing + ": NCCL 2.14 or later is needed";
  if (library.functions.GetVersion(&library.version) != kNcclSuccess || library.version < kOldestNccl)
    return "version " + library.version_text() + ": 2.14 or later is needed";
  Dl_info info;
  bool named = dladdr(reinterpret_cast<void*>(library.functions.GetVersion), &info) && info.dli_fname;
  library.path = named ? info.dli_fname : path;
  return "";
}

}  // namespace

std::string NcclLibrary::version_text() const {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

const NcclLibrary& NcclLibrary::open(const std::vector<std::string>& candidates) {
  std::lock_guard lock(mutex);
  NcclLibrary& library = opened();
  if (library.found) return library;
  library = {};
  for (auto& path : candidates) {
    std::string problem = problem_of(path, library);
    library.tried.push_back({path, problem});
    library.found = problem.empty();
    if (library.found) break;
  }
  return library;
}

const NcclLibrary& NcclLibrary::get() {
  std::lock_guard lock(mutex);
  NcclLibrary& library = opened();
  if (library.found) return library;
  std::string tried;
  for (auto& t : library.tried) tried += (tried.empty() ? "" : "; ") + t.path + ": " + t.problem;
  throw Error(
      "UNSUPPORTED", "open NCCL", "libnccl.so.2, for tensors of a GPU in a group of several ranks",
      tried.empty() ? "no file to try: the GPU is emulated" : tried,
      "install NCCL 2.14 or later (Debian: libnccl2; pip: nvidia-nccl-cu12), or set DS_NCCL_LIBRARY to the file");
}

}  // namespace ds
