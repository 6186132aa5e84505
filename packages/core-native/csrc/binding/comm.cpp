#include "comm.h"

#include <unistd.h>

#include "../collectives/process.h"
#include "../collectives/rendezvous.h"
#include "../collectives/shm.h"

namespace ds {

void Group::set(std::shared_ptr<HostCommunicator> communicator) {
  std::lock_guard lock(mutex_);
  communicator_ = std::move(communicator);
  if (closing_ && communicator_) communicator_->leave();
}

std::shared_ptr<HostCommunicator> Group::get() const {
  std::lock_guard lock(mutex_);
  return communicator_;
}

void Group::set_cuda(std::shared_ptr<NcclCommunicator> communicator) {
  std::lock_guard lock(mutex_);
  cuda_ = std::move(communicator);
}

std::shared_ptr<NcclCommunicator> Group::cuda() const {
  std::lock_guard lock(mutex_);
  return cuda_;
}

void Group::close() {
  std::lock_guard lock(mutex_);
  closing_ = true;
  if (cuda_) cuda_->leave();
  if (communicator_) communicator_->leave();
}

namespace binding {
namespace {

using Info = const Napi::CallbackInfo&;

double number(Info info, int i) { return info[i].As<Napi::Number>().DoubleValue(); }
uint32_t u32(Info info, int i) { return info[i].As<Napi::Number>().Uint32Value(); }
std::string text(Info info, int i) { return info[i].As<Napi::String>().Utf8Value(); }

std::shared_ptr<HostCommunicator> group_argument(Info info, int i) {
  auto& groups = Environment::of(info.Env()).groups;
  uint32_t id = u32(info, i);
  auto communicator = id < groups.size() && groups[id] ? groups[id]->get() : nullptr;
  if (!communicator)
    throw Error("DISPOSED", "collective", "a live group", "one that was destroyed, or that failed to open", "");
  return communicator;
}

std::shared_ptr<NcclCommunicator> cuda_argument(Info info, int i, const Stream& stream) {
  auto communicator = Environment::of(info.Env()).groups.at(u32(info, i))->cuda();
  if (!communicator)
    throw Error("INTERNAL", "collective", "a group that was opened for a GPU", "one that was not", "please report it");
  if (communicator->device() != cuda_number(stream.device()))
    throw Error("DEVICE", "collective", "tensors of cuda:" + std::to_string(communicator->device()),
                "tensors of cuda:" + std::to_string(cuda_number(stream.device())),
                "a rank has one GPU in a group, that of its first call");
  return communicator;
}

Napi::Value add_group(Info info, std::shared_ptr<Group> group) {
  auto& groups = Environment::of(info.Env()).groups;
  groups.push_back(std::move(group));
  return Napi::Number::New(info.Env(), double(groups.size() - 1));
}

// What a promise of a group resolves with.
Napi::Value add_opening(Info info, std::shared_ptr<Group> group) {
  auto result = Napi::Object::New(info.Env());
  result["group"] = add_group(info, std::move(group));
  return result;
}

ShmOptions options_argument(Info info, int from) {
  ShmOptions options;
  options.timeout_ms = int64_t(number(info, from));
  options.chunk_bytes = size_t(number(info, from + 1));
  options.transport = Transport(u32(info, from + 2));
  options.jitter_us = int64_t(number(info, from + 3));
  return options;
}

// comm_create_segment(world) -> file descriptor
Napi::Value comm_create_segment(Info info) { return Napi::Number::New(info.Env(), Segment::create(int(u32(info, 0)))); }

// comm_open(stream, fd | -1, session, rank, world, ...options) -> Promise<{ group }>, once all ranks are there
Napi::Value comm_open(Info info) {
  auto& env = Environment::of(info.Env());
  uint32_t stream = u32(info, 0);
  int fd = info[1].As<Napi::Number>().Int32Value(), rank = int(u32(info, 3)), world = int(u32(info, 4));
  auto options = options_argument(info, 5);
  auto group = std::make_shared<Group>();
  env.stream(stream).enqueue([=, session = text(info, 2)] {
    int from = fd >= 0 ? fd : meet_at(session, rank, world, options.timeout_ms, group->closing());
    auto segment = Segment::map(from);
    close(from);
    if (segment->world() != world)
      throw Error("COMM", "attach", std::to_string(segment->world()) + " ranks, as the job's memory says",
                  std::to_string(world), "see WORLD_SIZE");
    auto communicator = ShmCommunicator::attach(segment, rank, options);
    group->set(communicator);
    communicator->prepare_connect()();
  });
  return env.join(info.Env(), stream, add_opening(info, group));
}

// comm_single(...options) -> group
Napi::Value comm_single(Info info) {
  auto group = std::make_shared<Group>();
  group->set(ShmCommunicator::attach(Segment::alone(), 0, options_argument(info, 0)));
  return add_group(info, group);
}

// comm_null(rank, size) -> group
Napi::Value comm_null(Info info) {
  auto group = std::make_shared<Group>();
  group->set(std::make_shared<NullCommunicator>(int(u32(info, 0)), int(u32(info, 1))));
  return add_group(info, group);
}

Tensor tensor_argument(Info info, int i, const Stream& stream, std::vector<std::shared_ptr<Storage>>& keep) {
  uint32_t id = u32(info, i);
  if (id == 0) return {};
  auto& tensors = Environment::of(info.Env()).tensors;
  Tensor t = tensors.view(id);
  auto& storage = tensors.storage(id);
  if (storage->stream->device() != stream.device())
    throw Error("DEVICE", "collective", "tensors on the device of the stream", "a tensor of another device", "");
#ifdef DS_SANITIZE
  keep.push_back(storage);
#else
  (void)keep;
#endif
  return t;
}

// comm_run(stream, group, primitive, out | 0, in | 0, peer, scale, accumulate, tag)
Napi::Value comm_run(Info info) {
  auto& env = Environment::of(info.Env());
  Stream& stream = env.stream(u32(info, 0));
  auto communicator = group_argument(info, 1);
  std::vector<std::shared_ptr<Storage>> keep;
  Collective op;
  op.primitive = Primitive(u32(info, 2));
  op.out = tensor_argument(info, 3, stream, keep);
  op.in = tensor_argument(info, 4, stream, keep);
  op.peer = info[5].As<Napi::Number>().Int32Value();
  op.scale = number(info, 6);
  op.accumulate = info[7].As<Napi::Boolean>().Value();
  op.tag = text(info, 8);
  op.cuda = stream.cuda();
  if (stream.kind() == DeviceKind::null) {
    communicator->count(op);
    return info.Env().Undefined();
  }
  auto job = op.cuda ? cuda_argument(info, 1, stream)->prepare(std::move(op)) : communicator->prepare(std::move(op));
  if (keep.empty())
    stream.enqueue(std::move(job));
  else
    stream.enqueue([job = std::move(job), keep = std::move(keep)]() mutable { job(); });
  return info.Env().Undefined();
}

// comm_open_cuda(stream, group, exactSums, always, timeoutMs): for tensors of the stream's GPU, at the first call of
// them
Napi::Value comm_open_cuda(Info info) {
  Stream& stream = Environment::of(info.Env()).stream(u32(info, 0));
  auto host = group_argument(info, 1);
  NcclOptions options;
  options.sums = info[2].As<Napi::Boolean>().Value() ? NcclSums::exact : NcclSums::unordered;
  options.always = info[3].As<Napi::Boolean>().Value();
  options.timeout_ms = int64_t(number(info, 4));
  auto communicator = NcclCommunicator::create(*host, cuda_number(stream.device()), options);
  Environment::of(info.Env()).groups[u32(info, 1)]->set_cuda(communicator);
  stream.enqueue(communicator->prepare_open(*host, stream.cuda()));
  return info.Env().Undefined();
}

// nccl(candidates) -> { path, version, tried: [{ path, problem }] }: opens the first that is NCCL, unless one is open
Napi::Value nccl(Info info) {
  auto list = info[0].As<Napi::Array>();
  std::vector<std::string> candidates;
  for (uint32_t i = 0; i < list.Length(); ++i) candidates.push_back(list.Get(i).As<Napi::String>().Utf8Value());
  const NcclLibrary& library = NcclLibrary::open(candidates);
  auto result = Napi::Object::New(info.Env());
  auto tried = Napi::Array::New(info.Env());
  for (auto& t : library.tried) {
    auto row = Napi::Object::New(info.Env());
    row["path"] = t.path, row["problem"] = t.problem;
    tried[tried.Length()] = row;
  }
  result["path"] = library.path, result["version"] = library.found ? library.version_text() : "";
  result["tried"] = tried;
  return result;
}

// comm_split(stream, group, color, key) -> Promise<{ group }>; a group without a communicator for color < 0
Napi::Value comm_split(Info info) {
  auto& env = Environment::of(info.Env());
  uint32_t stream = u32(info, 0);
  auto group = std::make_shared<Group>();
  auto part = std::make_shared<std::shared_ptr<HostCommunicator>>();
  auto job = group_argument(info, 1)->prepare_split(info[2].As<Napi::Number>().Int32Value(),
                                                    info[3].As<Napi::Number>().Int32Value(), part.get());
  env.stream(stream).enqueue([=, job = std::move(job)] {
    job();
    group->set(std::move(*part));
  });
  return env.join(info.Env(), stream, add_opening(info, group));
}

// comm_info(group) -> { rank, size, transport, flight }, or undefined for a split that left this rank out
Napi::Value comm_info(Info info) {
  auto& groups = Environment::of(info.Env()).groups;
  auto communicator = groups.at(u32(info, 0))->get();
  if (!communicator) return info.Env().Undefined();
  auto result = Napi::Object::New(info.Env());
  result["rank"] = communicator->rank(), result["size"] = communicator->size();
  std::string transport = communicator->transport(), flight = communicator->flight_record();
  if (auto cuda = groups[u32(info, 0)]->cuda()) {
    std::string device = "cuda:" + std::to_string(cuda->device());
    transport += "; " + device + ": " + cuda->transport();
    flight += ". On " + device + ": " + cuda->flight_record();
  }
  result["transport"] = transport, result["flight"] = flight;
  return result;
}

// comm_counters(group) -> calls, elements and bytes of each primitive, in their order
Napi::Value comm_counters(Info info) {
  auto communicator = group_argument(info, 0);
  auto cuda = Environment::of(info.Env()).groups[u32(info, 0)]->cuda();
  auto result = Napi::Float64Array::New(info.Env(), size_t(3 * kPrimitives));
  for (int p = 0; p < kPrimitives; ++p) {
    Traffic t = communicator->traffic(Primitive(p));
    if (cuda) t += cuda->traffic(Primitive(p));
    double N = double(communicator->size());
    result[size_t(3 * p)] = double(t.calls);
    result[size_t(3 * p + 1)] = double(t.elements_times_ranks) / N;
    result[size_t(3 * p + 2)] = double(t.bytes_times_ranks) / N;
  }
  return result;
}

Napi::Value comm_reset_counters(Info info) {
  group_argument(info, 0)->reset_traffic();
  if (auto cuda = Environment::of(info.Env()).groups[u32(info, 0)]->cuda()) cuda->reset_traffic();
  return info.Env().Undefined();
}

// comm_abort(group, reason)
Napi::Value comm_abort(Info info) {
  group_argument(info, 0)->abort(text(info, 1));
  return info.Env().Undefined();
}

// comm_destroy(stream, group): leaves it once its calls so far are done
Napi::Value comm_destroy(Info info) {
  auto& env = Environment::of(info.Env());
  uint32_t id = u32(info, 1);
  auto communicator = group_argument(info, 1);
  Stream& stream = env.stream(u32(info, 0));
  if (auto cuda = env.groups[id]->cuda()) stream.enqueue(cuda->prepare_leave());
  stream.enqueue(communicator->prepare_leave());
  env.groups[id] = nullptr;
  return info.Env().Undefined();
}

// die_with_parent(pid) -> whether the parent is that process
Napi::Value die_with_parent_(Info info) {
  return Napi::Boolean::New(info.Env(), die_with_parent(info[0].As<Napi::Number>().Int64Value()));
}

template <Napi::Value (*fn)(Info)>
Napi::Value safe(Info info) {
  return guarded(info.Env(), [&] { return fn(info); });
}

}  // namespace

void install_collectives(Napi::Env env, Napi::Object exports) {
  auto add = [&]<Napi::Value (*fn)(Info)>(const char* name) {
    exports[name] = Napi::Function::New<safe<fn>>(env, name);
  };
  add.operator()<comm_create_segment>("comm_create_segment");
  add.operator()<comm_open>("comm_open");
  add.operator()<comm_single>("comm_single");
  add.operator()<comm_null>("comm_null");
  add.operator()<comm_run>("comm_run");
  add.operator()<comm_open_cuda>("comm_open_cuda");
  add.operator()<nccl>("nccl");
  add.operator()<comm_split>("comm_split");
  add.operator()<comm_info>("comm_info");
  add.operator()<comm_counters>("comm_counters");
  add.operator()<comm_reset_counters>("comm_reset_counters");
  add.operator()<comm_abort>("comm_abort");
  add.operator()<comm_destroy>("comm_destroy");
  add.operator()<die_with_parent_>("die_with_parent");
}

}  // namespace binding
}  // namespace ds
