// The addon's export table: memory, streams and the ops. src/binding.ts types exactly this list.
#include <cstring>
#include <vector>

#include "../kernels/common/cpu_isa.h"
#include "../kernels/gemm/library_gemm.h"
#include "../runtime/pool.h"
#include "comm.h"
#include "env.h"
#include "measure.h"
#include "ops.h"

namespace ds {
namespace {

using Info = const Napi::CallbackInfo&;

uint32_t u32(Info info, int i) { return info[i].As<Napi::Number>().Uint32Value(); }

Stream& cuda_stream(Info info) {
  Stream& stream = Environment::of(info.Env()).stream(u32(info, 0));
  if (!stream.cuda())
    throw Error("DEVICE", "graph", "a stream of a CUDA device", "one of another device",
                "other devices have nothing to record: queue the ops again");
  return stream;
}

std::shared_ptr<CudaGraph> graph_argument(Info info) {
  auto& graphs = Environment::of(info.Env()).graphs;
  uint32_t id = u32(info, 1);
  if (id < graphs.size() && graphs[id]) return graphs[id];
  throw Error("DISPOSED", "graph", "a live graph", "one that was disposed", "");
}

Tensor shape_argument(Info info, size_t from) {
  Tensor t;
  if (info.Length() - from > kMaxRank)
    throw Error("SHAPE", "tensor", "at most 6 dims", std::to_string(info.Length() - from), "merge dims with view()");
  for (size_t i = from; i < info.Length(); ++i) t.dims[t.rank++] = info[i].As<Napi::Number>().Int64Value();
  return t;
}

Napi::Value initialize(Info info) {
  Environment::of(info.Env()).error_class = Napi::Persistent(info[0].As<Napi::Function>());
  return info.Env().Undefined();
}

Napi::Value create_stream(Info info) {
  auto& env = Environment::of(info.Env());
  int device = int(u32(info, 0));
  if (kind_of(device) == DeviceKind::cuda) CudaLibrary::for_device(cuda_number(device));
  env.streams.push_back(std::make_shared<Stream>(device, env.accounts.at(size_t(device))));
  return Napi::Number::New(info.Env(), double(env.streams.size() - 1));
}

// allocate(stream, dtype, owner, ...dims) -> id
Napi::Value allocate(Info info) {
  auto& env = Environment::of(info.Env());
  Tensor view = shape_argument(info, 3);
  view.dtype = DType(u32(info, 1));
  return Napi::Number::New(info.Env(), env.allocate(u32(info, 0), view, uint16_t(u32(info, 2))));
}

// view(id, elementOffset, ...dims) -> id: shares the storage
Napi::Value view(Info info) {
  auto& env = Environment::of(info.Env());
  uint32_t id = u32(info, 0);
  const Tensor& base = env.tensors.view(id);
  int64_t offset = info[1].As<Napi::Number>().Int64Value();
  Tensor t = shape_argument(info, 2);
  t.dtype = base.dtype, t.present = true;
  if (offset < 0 || offset + t.numel() > base.numel())
    throw Error("SHAPE", "view", "a range inside " + shape_text(base),
                "offset " + std::to_string(offset) + " and shape " + shape_text(t), "");
  if (base.data) t.data = static_cast<char*>(base.data) + size_t(offset) * dtype_bytes(base.dtype);
  auto storage = env.tensors.storage(id);  // `base` dies with the table's next growth
  return Napi::Number::New(info.Env(), env.tensors.add(t, storage));
}

Napi::Value retain(Info info) {
  Environment::of(info.Env()).tensors.retain(u32(info, 0));
  return info.Env().Undefined();
}

Napi::Value release(Info info) {
  return Napi::Boolean::New(info.Env(), Environment::of(info.Env()).tensors.release(u32(info, 0)));
}

// write(stream, id, bytes): copies at once, the device sees it in stream order
Napi::Value write(Info info) {
  auto& env = Environment::of(info.Env());
  Tensor t = env.tensors.view(u32(info, 1));
  auto bytes = info[2].As<Napi::Uint8Array>();
  size_t size = size_t(t.numel()) * dtype_bytes(t.dtype);
  if (bytes.ByteLength() != size)
    throw Error("SHAPE", "write", std::to_string(size) + " bytes for " + shape_text(t),
                std::to_string(bytes.ByteLength()), "");
  Stream& stream = env.stream(u32(info, 0));
  if (stream.kind() == DeviceKind::null || size == 0) return info.Env().Undefined();
  std::vector<uint8_t> staged(bytes.Data(), bytes.Data() + size);
  stream.enqueue(
      [t, staged = std::move(staged), cuda = stream.cuda(), keep = held_by_command(env.tensors.storage(u32(info, 1)))] {
        if (cuda)
          cuda->upload(t.data, staged.data(), staged.size());
        else
          std::memcpy(t.data, staged.data(), staged.size());
      });
  return info.Env().Undefined();
}

// read(stream, id) -> Promise<ArrayBuffer>
Napi::Value read(Info info) {
  auto& env = Environment::of(info.Env());
  uint32_t stream_id = u32(info, 0);
  Tensor t = env.tensors.view(u32(info, 1));
  Stream& stream = env.stream(stream_id);
  if (stream.kind() == DeviceKind::null)
    throw Error("DEVICE", "read", "a device that computes", "the null device, which knows shapes and bytes only", "");
  size_t size = size_t(t.numel()) * dtype_bytes(t.dtype);
  auto buffer = Napi::ArrayBuffer::New(info.Env(), size);
  void* target = buffer.Data();
  if (size)
    stream.enqueue([t, target, size, cuda = stream.cuda(), keep = held_by_command(env.tensors.storage(u32(info, 1)))] {
      if (cuda)
        cuda->download(target, t.data, size);
      else
        std::memcpy(target, t.data, size);
    });
  return env.join(info.Env(), stream_id, buffer);
}

Napi::Value join(Info info) {
  return Environment::of(info.Env()).join(info.Env(), u32(info, 0), info.Env().Undefined());
}

Napi::Value join_sync(Info info) {
  if (auto error = Environment::of(info.Env()).stream(u32(info, 0)).join()) throw *error;
  return info.Env().Undefined();
}

Napi::Value record(Info info) {
  return Napi::Number::New(info.Env(), double(Environment::of(info.Env()).stream(u32(info, 0)).record()));
}

// wait(stream, otherStream, ticket)
Napi::Value wait(Info info) {
  auto& env = Environment::of(info.Env());
  env.stream(u32(info, 0)).wait(env.stream_pointer(u32(info, 1)), uint64_t(info[2].As<Napi::Number>().Int64Value()));
  return info.Env().Undefined();
}

// transfer(stream, out, x): copies between devices in the order of `stream`, a CUDA device's where there is one. The
// other tensor's stream must wait for it, and it for that one.
Napi::Value transfer(Info info) {
  auto& env = Environment::of(info.Env());
  Stream& stream = env.stream(u32(info, 0));
  Tensor out = env.tensors.view(u32(info, 1)), x = env.tensors.view(u32(info, 2));
  auto &to = env.tensors.storage(u32(info, 1)), &from = env.tensors.storage(u32(info, 2));
  bool from_cuda = from->stream->cuda(), to_cuda = to->stream->cuda();
  if (out.numel() != x.numel() || out.dtype != x.dtype || bool(stream.cuda()) != (from_cuda || to_cuda))
    throw Error("INTERNAL", "transfer", "equal tensors, and the stream of one of them",
                shape_text(out) + " and " + shape_text(x), "please report it");
  size_t size = size_t(x.numel()) * dtype_bytes(x.dtype);
  if (size)
    stream.enqueue(
        [=, cuda = stream.cuda(), out = out.data, x = x.data, a = held_by_command(to), b = held_by_command(from)] {
          if (from_cuda && to_cuda)
            cuda->copy(out, x, size);
          else if (to_cuda)
            cuda->upload(out, x, size);
          else if (from_cuda)
            cuda->download(out, x, size);
          else
            std::memcpy(out, x, size);
        });
  return info.Env().Undefined();
}

Napi::Value graph_begin(Info info) {
  Stream& stream = cuda_stream(info);
  stream.enqueue([cuda = stream.cuda()] { cuda->begin_graph(); });
  return info.Env().Undefined();
}

// graph_end(stream) -> id
Napi::Value graph_end(Info info) {
  auto& env = Environment::of(info.Env());
  Stream& stream = cuda_stream(info);
  auto graph = std::make_shared<CudaGraph>();
  stream.enqueue([cuda = stream.cuda(), graph] { graph->end(*cuda); });
  env.graphs.push_back(std::move(graph));
  return Napi::Number::New(info.Env(), double(env.graphs.size() - 1));
}

// graph_launch(stream, id)
Napi::Value graph_launch(Info info) {
  Stream& stream = cuda_stream(info);
  stream.enqueue([cuda = stream.cuda(), graph = graph_argument(info)] { graph->launch(*cuda); });
  return info.Env().Undefined();
}

// graph_destroy(stream, id): once the launches queued before it are done
Napi::Value graph_destroy(Info info) {
  Stream& stream = cuda_stream(info);
  auto graph = graph_argument(info);
  Environment::of(info.Env()).graphs[u32(info, 1)].reset();
  stream.enqueue([cuda = stream.cuda(), graph] {
    cuda->drain();
    graph->destroy();
  });
  return info.Env().Undefined();
}

// cuda() -> { path, problem, devices: [{ name, capability, multiprocessors, total, free }] }
Napi::Value cuda(Info info) {
  const CudaLibrary& library = CudaLibrary::get();
  auto result = Napi::Object::New(info.Env());
  auto devices = Napi::Array::New(info.Env());
  for (int n = 0; n < library.devices; ++n) {
    DsCudaDevice properties;
    size_t free = 0;
    cuda_call(library.table->device, n, &properties);
    cuda_call(library.table->free_memory, n, &free);
    auto row = Napi::Object::New(info.Env());
    row["name"] = properties.name, row["multiprocessors"] = properties.multiprocessors;
    row["capability"] = std::to_string(properties.major) + "." + std::to_string(properties.minor);
    row["total"] = double(properties.total_memory), row["free"] = double(free);
    devices[devices.Length()] = row;
  }
  result["path"] = library.path, result["problem"] = library.problem;
  result["emulated"] = library.table && library.table->emulate, result["devices"] = devices;
  return result;
}

// has_cuda_kernel(op)
Napi::Value has_cuda_kernel(Info info) {
  const CudaLibrary& library = CudaLibrary::get();
  std::string op = info[0].As<Napi::String>().Utf8Value();
  return Napi::Boolean::New(info.Env(), library.table && library.table->find_kernel(op.c_str()));
}

// set_cuda_library(path): what `cuda` and streams open
Napi::Value set_cuda_library(Info info) {
  CudaLibrary::choose(info[0].As<Napi::String>().Utf8Value());
  return info.Env().Undefined();
}

// set_cuda_gemm(choice, ...paths): see DsCudaGemm. The settings of a process: the same ones may be set again.
Napi::Value set_cuda_gemm(Info info) {
  const CudaLibrary& library = CudaLibrary::get();
  std::vector<std::string> texts;
  for (size_t i = 1; i < info.Length(); ++i) texts.push_back(info[i].As<Napi::String>().Utf8Value());
  std::vector<const char*> paths;
  for (auto& text : texts) paths.push_back(text.c_str());
  DsCudaGemm settings{int32_t(u32(info, 0)), paths.data(), int32_t(paths.size())};
  if (library.table) cuda_call(library.table->set_gemm, &settings);
  return info.Env().Undefined();
}

// cuda_gemm() -> what makes large products, empty without a CUDA library
Napi::Value cuda_gemm(Info info) {
  const CudaLibrary& library = CudaLibrary::get();
  char text[4096] = "";
  if (library.table) cuda_call(library.table->gemm_library, text, sizeof text);
  return Napi::String::New(info.Env(), text);
}

// cuda_emulate(devices, threads, totalMemory, order): before the first use of a device
Napi::Value cuda_emulate(Info info) {
  DsCudaEmulation settings{int32_t(u32(info, 0)), int32_t(u32(info, 1)),
                           size_t(info[2].As<Napi::Number>().DoubleValue()), uint64_t(u32(info, 3))};
  CudaLibrary::emulate(settings);
  return info.Env().Undefined();
}

Napi::Value trim(Info info) {
  auto& env = Environment::of(info.Env());
  env.stream(u32(info, 0)).trim();
  return info.Env().Undefined();
}

Account& account_argument(Info info) { return Environment::of(info.Env()).accounts.at(u32(info, 0)); }

Napi::Value owner_id(Info info) {
  return Napi::Number::New(info.Env(), account_argument(info).owner_id(info[1].As<Napi::String>().Utf8Value()));
}

// account(device) -> { live, peak, owners: { name: { live, peak } } }, in bytes
Napi::Value account(Info info) {
  Account& a = account_argument(info);
  auto result = Napi::Object::New(info.Env()), owners = Napi::Object::New(info.Env());
  for (auto& o : a.owners()) {
    auto row = Napi::Object::New(info.Env());
    row["live"] = double(o.live), row["peak"] = double(o.peak);
    owners[o.owner] = row;
  }
  result["live"] = double(a.live()), result["peak"] = double(a.peak()), result["owners"] = owners;
  return result;
}

Napi::Value reset_peak(Info info) {
  account_argument(info).reset_peak();
  return info.Env().Undefined();
}

Napi::Value set_limit(Info info) {
  account_argument(info).set_limit(size_t(info[1].As<Napi::Number>().DoubleValue()));
  return info.Env().Undefined();
}

// sanitized(): whether tensors come from malloc, each with its own block, so that a sanitizer sees misuse
Napi::Value sanitized(Info info) {
#ifdef DS_SANITIZE
  return Napi::Boolean::New(info.Env(), true);
#else
  return Napi::Boolean::New(info.Env(), false);
#endif
}

Napi::Value live_tensors(Info info) {
  return Napi::Number::New(info.Env(), double(Environment::of(info.Env()).tensors.live()));
}

Napi::Value threads(Info info) { return Napi::Number::New(info.Env(), Pool::shared().threads()); }

Napi::Value set_threads(Info info) {
  Pool::shared().resize(int(u32(info, 0)));
  return info.Env().Undefined();
}

// cpu() -> { isa, supported: [...] }
Napi::Value cpu(Info info) {
  auto result = Napi::Object::New(info.Env());
  auto supported = Napi::Array::New(info.Env());
  for (auto isa : supported_isas()) supported[supported.Length()] = isa_name(isa);
  result["isa"] = isa_name(current_isa()), result["supported"] = supported;
  return result;
}

// gemm() -> { library: whether one is in this build, choice: 'auto' | 'openblas' | 'internal' }
Napi::Value gemm(Info info) {
  constexpr const char* names[] = {"auto", "openblas", "internal"};
  auto result = Napi::Object::New(info.Env());
  result["library"] = has_library_gemm(), result["choice"] = names[int(gemm_choice())];
  return result;
}

Napi::Value set_gemm(Info info) {
  std::string name = info[0].As<Napi::String>().Utf8Value();
  std::string choices = has_library_gemm() ? "auto, openblas, internal" : "auto, internal";
  if (name == "auto")
    set_gemm_choice(GemmChoice::automatic);
  else if (name == "internal")
    set_gemm_choice(GemmChoice::own);
  else if (name == "openblas" && has_library_gemm())
    set_gemm_choice(GemmChoice::library);
  else
    throw Error("UNSUPPORTED", "set_gemm", "one of " + choices, name, "leave DS_GEMM unset to take the faster one");
  return info.Env().Undefined();
}

Napi::Value set_isa(Info info) {
  set_current_isa(info[0].As<Napi::String>().Utf8Value());
  return info.Env().Undefined();
}

template <Napi::Value (*fn)(Info)>
Napi::Value safe(Info info) {
  return guarded(info.Env(), [&] { return fn(info); });
}

Napi::Object install(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Environment(env));
  auto add = [&]<Napi::Value (*fn)(Info)>(const char* name) {
    exports[name] = Napi::Function::New<safe<fn>>(env, name);
  };
#define DS_EXPORT(name) add.operator()<name>(#name)
  DS_EXPORT(initialize);
  DS_EXPORT(create_stream);
  DS_EXPORT(allocate);
  DS_EXPORT(view);
  DS_EXPORT(retain);
  DS_EXPORT(release);
  DS_EXPORT(write);
  DS_EXPORT(read);
  DS_EXPORT(join);
  DS_EXPORT(join_sync);
  DS_EXPORT(record);
  DS_EXPORT(wait);
  DS_EXPORT(transfer);
  DS_EXPORT(graph_begin);
  DS_EXPORT(graph_end);
  DS_EXPORT(graph_launch);
  DS_EXPORT(graph_destroy);
  DS_EXPORT(cuda);
  DS_EXPORT(has_cuda_kernel);
  DS_EXPORT(set_cuda_library);
  DS_EXPORT(set_cuda_gemm);
  DS_EXPORT(cuda_gemm);
  DS_EXPORT(cuda_emulate);
  DS_EXPORT(trim);
  DS_EXPORT(owner_id);
  DS_EXPORT(account);
  DS_EXPORT(reset_peak);
  DS_EXPORT(set_limit);
  DS_EXPORT(live_tensors);
  DS_EXPORT(sanitized);
  DS_EXPORT(threads);
  DS_EXPORT(set_threads);
  DS_EXPORT(cpu);
  DS_EXPORT(set_isa);
  DS_EXPORT(gemm);
  DS_EXPORT(set_gemm);
  DS_EXPORT(measure);
#undef DS_EXPORT
  binding::install_collectives(env, exports);
  binding::Ops::install(env, exports);
  return exports;
}

}  // namespace
}  // namespace ds

static Napi::Object install_addon(Napi::Env env, Napi::Object exports) { return ds::install(env, exports); }
NODE_API_MODULE(ds_core, install_addon)
