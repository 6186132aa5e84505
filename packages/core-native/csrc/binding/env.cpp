#include "env.h"

#include <cstdlib>

#include "../collectives/nccl_watch.h"
#include "comm.h"

namespace ds {
namespace {

constexpr uint32_t kSlotBits = 22, kGenerationMask = 0x1ff;

struct Settlement {
  Napi::Promise::Deferred deferred;
  Napi::Reference<Napi::Value> value;
  std::optional<Error> error;
};

}  // namespace

Storage::~Storage() {
  if (!account) return;
  account->remove(bytes, owner);
#ifdef DS_SANITIZE
  std::free(data);
#else
  if (data) stream->arena().free(data, bytes);
#endif
}

const TensorTable::Slot& TensorTable::slot(TensorId id) const {
  uint32_t index = id & ((1u << kSlotBits) - 1);
  if (index == 0 || index >= slots_.size() || slots_[index].references == 0 ||
      (slots_[index].generation & kGenerationMask) != (id >> kSlotBits))
    throw Error("DISPOSED", "tensor", "a live tensor", "one that was disposed",
                "keep it with tensor.retain(), or return it from the scope that made it");
  return slots_[index];
}

TensorId TensorTable::add(Tensor view, std::shared_ptr<Storage> storage) {
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    index = uint32_t(slots_.size());
    if (index >> kSlotBits)
      throw Error("OOM", "tensor", "fewer than 4194304 live tensors", "one more", "dispose tensors, or use scope()");
    slots_.emplace_back();
  }
  Slot& s = slots_[index];
  s.view = view;
  s.storage = std::move(storage);
  s.references = 1;
  ++live_;
  return ((s.generation & kGenerationMask) << kSlotBits) | index;
}

void TensorTable::retain(TensorId id) { ++const_cast<Slot&>(slot(id)).references; }

bool TensorTable::release(TensorId id) {
  Slot& s = const_cast<Slot&>(slot(id));
  if (--s.references) return false;
  s.storage.reset();
  s.generation = (s.generation & kGenerationMask) == kGenerationMask ? 1 : s.generation + 1;
  free_.push_back(id & ((1u << kSlotBits) - 1));
  --live_;
  return true;
}

Environment::Environment(Napi::Env env) {
  settle =
      Napi::ThreadSafeFunction::New(env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "ds.settle", 0, 1);
  settle.Unref(env);  // an idle addon must not keep the process alive
}

Environment::~Environment() {
  // A stream may sit in a collective: it must end before the streams are waited for.
  for (auto& group : groups)
    if (group) group->close();
  NcclWatcher::see_off();
  settle.Abort();
}

std::shared_ptr<Stream> Environment::stream_pointer(uint32_t id) const {
  if (id >= streams.size() || !streams[id])
    throw Error("DISPOSED", "stream", "a live stream", "stream " + std::to_string(id),
                "create it with device.stream()");
  return streams[id];
}

Stream& Environment::stream(uint32_t id) const { return *stream_pointer(id); }

void* Environment::allocate_block(Stream& stream, size_t bytes) {
  try {
    return stream.arena().allocate(bytes);
  } catch (const Error& error) {
    if (error.code != "OOM" || stream.kind() != DeviceKind::cuda) throw;
  }
  // The device is full, but the arenas of its streams may hold memory that nobody uses.
  for (auto& other : streams)
    if (other && other->device() == stream.device()) other->trim();
  return stream.arena().allocate(bytes);
}

TensorId Environment::allocate(uint32_t stream_id, Tensor view, uint16_t owner) {
  auto s = stream_pointer(stream_id);
  auto storage = std::make_shared<Storage>();
  size_t bytes = block_bytes(size_t(view.numel()) * dtype_bytes(view.dtype));
  Account& account = accounts[size_t(s->device())];
  account.add(bytes, owner);
  storage->account = &account, storage->bytes = bytes, storage->owner = owner, storage->stream = s;
  if (bytes && s->kind() != DeviceKind::null) {
#ifdef DS_SANITIZE
    storage->data = std::aligned_alloc(kBlockBytes, bytes);
#else
    try {
      storage->data = allocate_block(*s, bytes);
    } catch (const Error& error) {
      storage.reset();  // or it would count among the owners
      if (error.code != "OOM" || s->kind() != DeviceKind::cuda) throw;
      throw account.out_of_memory(bytes);
    }
#endif
  }
  view.data = storage->data;
  view.present = true;
  return tensors.add(view, std::move(storage));
}

Napi::Value Environment::join(Napi::Env env, uint32_t stream_id, Napi::Value value) {
  auto settlement = new Settlement{Napi::Promise::Deferred::New(env), {}, {}};
  // Node-API refers to objects only; an absent value needs no reference.
  if (value.IsObject()) settlement->value = Napi::Reference<Napi::Value>::New(value, 1);
  Napi::Value promise = settlement->deferred.Promise();
  if (pending_joins++ == 0) settle.Ref(env);
  stream(stream_id).enqueue_join([this, settlement](std::optional<Error> error) {
    settlement->error = std::move(error);
    settle.NonBlockingCall(settlement, [this](Napi::Env env, Napi::Function, Settlement* s) {
      std::unique_ptr<Settlement> owned(s);
      if (--pending_joins == 0) settle.Unref(env);
      if (s->error)
        s->deferred.Reject(to_js(env, *s->error).Value());
      else
        s->deferred.Resolve(s->value.IsEmpty() ? env.Undefined() : s->value.Value());
    });
  });
  return promise;
}

Napi::Error to_js(Napi::Env env, const Error& error) {
  auto& state = Environment::of(env);
  auto fields = Napi::Object::New(env);
  fields["code"] = error.code;
  fields["op"] = error.op;
  fields["expected"] = error.expected;
  fields["actual"] = error.actual;
  fields["hint"] = error.hint;
  if (state.error_class.IsEmpty()) return Napi::Error::New(env, error.what());
  return Napi::Error(env, state.error_class.New({fields}));
}

}  // namespace ds
