// What one JavaScript environment (the main thread, or one worker) owns: tensors, streams, accounts.
#pragma once
#include <napi.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "../runtime/memory.h"
#include "../runtime/stream.h"
#include "../runtime/tensor.h"

namespace ds {

// A block of memory with its place in an account. Released on the environment's thread.
struct Storage {
  std::shared_ptr<Stream> stream;
  Account* account = nullptr;
  void* data = nullptr;
  size_t bytes = 0;
  uint16_t owner = 0;
  ~Storage();
};

using TensorId = uint32_t;  // generation (9 bits) above slot (22 bits); 0 is "no tensor"

// Slots with generations: a handle that outlived its tensor is recognised instead of reading another one's memory.
class TensorTable {
 public:
  TensorId add(Tensor view, std::shared_ptr<Storage> storage);
  void retain(TensorId id);
  // Returns true when this was the last reference.
  bool release(TensorId id);
  const Tensor& view(TensorId id) const { return slot(id).view; }
  const std::shared_ptr<Storage>& storage(TensorId id) const { return slot(id).storage; }
  size_t live() const { return live_; }

 private:
  struct Slot {
    Tensor view;
    std::shared_ptr<Storage> storage;
    uint32_t generation = 1;
    uint32_t references = 0;
  };
  const Slot& slot(TensorId id) const;
  std::vector<Slot> slots_{Slot{}};  // slot 0 is never used
  std::vector<uint32_t> free_;
  size_t live_ = 0;
};

class Group;  // of ranks: comm.h

struct Environment {
  explicit Environment(Napi::Env env);
  ~Environment();
  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  Stream& stream(uint32_t id) const;
  std::shared_ptr<Stream> stream_pointer(uint32_t id) const;
  // Allocates `view` (dims, rank and dtype set) on a stream; fills in data and present.
  TensorId allocate(uint32_t stream_id, Tensor view, uint16_t owner);
  void* allocate_block(Stream& stream, size_t bytes);
  // Resolves with `value` (or rejects with the stream's error) once everything queued on the stream so far is done.
  Napi::Value join(Napi::Env env, uint32_t stream_id, Napi::Value value);

  std::array<Account, kDevices> accounts;  // one a device
  TensorTable tensors;
  std::vector<std::shared_ptr<Stream>> streams;
  std::vector<std::shared_ptr<Group>> groups;
  std::vector<std::shared_ptr<CudaGraph>> graphs;
  Napi::FunctionReference error_class;
  Napi::ThreadSafeFunction settle;  // runs promise settlements on the environment's thread
  int pending_joins = 0;
};

// What a queued command keeps of a tensor's memory. Nothing, as a rule: the arena hands a freed block only to commands
// that are queued later (and blocks belong to the environment's thread). Under a sanitizer there is no arena, and the
// command holds the block, so that memory which is used too late is seen.
inline std::shared_ptr<Storage> held_by_command([[maybe_unused]] const std::shared_ptr<Storage>& storage) {
#ifdef DS_SANITIZE
  return storage;
#else
  return nullptr;
#endif
}

// Builds the DsError that JavaScript sees.
Napi::Error to_js(Napi::Env env, const Error& error);

// Runs fn and turns a ds::Error into a thrown DsError.
template <class F>
auto guarded(Napi::Env env, F&& fn) {
  try {
    return fn();
  } catch (const Error& error) {
    throw to_js(env, error);
  }
}

}  // namespace ds
