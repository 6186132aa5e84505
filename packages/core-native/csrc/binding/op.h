// Binds an op: reads its fields from the JavaScript arguments, checks them, queues the kernel of the stream's device.
//
// An op is a struct: a static `name`, its arguments as fields (outputs, inputs, saved, scalars, in this order),
// `visit(v)` that lists the fields, `check()` for memory safety, and one member function a device.
#pragma once
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../runtime/op_fields.h"
#include "env.h"

namespace ds {

namespace binding {

class ArgumentReader {
 public:
  ArgumentReader(const Napi::CallbackInfo& info, Environment& env, const char* op)
      : info_(info), env_(env), op_(op), stream_(env.stream(number<uint32_t>("stream"))) {}

  template <class... Fields>
  void operator()(Fields&... fields) {
    (read(fields), ...);
    if (next_ != info_.Length()) fail(std::to_string(next_) + " arguments", std::to_string(info_.Length()));
  }
  Stream& stream() { return stream_; }
  std::vector<std::shared_ptr<Storage>> storages;  // filled under DS_SANITIZE only

 private:
  void read(Tensor& t) { load(t, uint32_t(number<double>("a tensor id"))); }
  void read(Optional& t) {
    uint32_t id = uint32_t(number<double>("a tensor id or 0"));
    if (id) load(t, id);
  }
  void read(double& x) { x = number<double>("a number"); }
  void read(int64_t& x) { x = int64_t(number<double>("an integer")); }
  void read(bool& x) {
    if (napi_get_value_bool(info_.Env(), info_[next_++], &x) != napi_ok) fail("true or false", "something else");
  }

  // A group of fields that several ops share.
  template <class Group>
  void read(Group& group) {
    auto each = [this](auto&... fields) { (read(fields), ...); };
    group.visit(each);
  }

  void load(Tensor& t, uint32_t id) {
    static_cast<Tensor&>(t) = env_.tensors.view(id);
    auto& storage = env_.tensors.storage(id);
    if (storage->stream->device() != stream_.device())
      throw Error("DEVICE", op_, "tensors on the device of the stream", "a tensor of another device",
                  "move it with tensor.to(device)");
#ifdef DS_SANITIZE
    storages.push_back(storage);
#endif
  }

  template <class T>
  T number(const char* what) {
    double value = 0;
    napi_value argument = info_[next_++];
    if (napi_get_value_double(info_.Env(), argument, &value) != napi_ok) fail(what, "something else");
    return T(value);
  }
  [[noreturn]] void fail(const std::string& expected, const std::string& actual) {
    throw Error("INTERNAL", op_, expected, actual, "the native table and src/binding.ts disagree: please report it");
  }

  const Napi::CallbackInfo& info_;
  Environment& env_;
  const char* op_;
  size_t next_ = 0;
  Stream& stream_;
};

// Spells an op's arguments, one letter each, for the drift check: t tensor, o optional tensor, d double, i integer, b
// flag.
struct SignatureWriter {
  std::string text;
  template <class... Fields>
  void operator()(Fields&... fields) {
    (write(fields), ...);
  }
  void write(Optional&) { text += 'o'; }
  void write(Tensor&) { text += 't'; }
  void write(double&) { text += 'd'; }
  void write(int64_t&) { text += 'i'; }
  void write(bool&) { text += 'b'; }
  template <class Group>
  void write(Group& group) {
    group.visit(*this);
  }
};

template <class Op>
Napi::Value call(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto& env = Environment::of(info.Env());
    Op op;
    ArgumentReader reader(info, env, Op::name);
    op.visit(reader);
    op.check();
    switch (reader.stream().kind()) {
      case DeviceKind::cpu:
        reader.stream().enqueue([op, keep = std::move(reader.storages)] { op.cpu(); });
        break;
      case DeviceKind::ref:
        reader.stream().enqueue([op, keep = std::move(reader.storages)] { op.ref(); });
        break;
      case DeviceKind::null:
        break;  // shapes and bytes only
      case DeviceKind::cuda:
        reader.stream().enqueue([op, kernel = &cuda_kernel<Op>(), cuda = reader.stream().cuda(),
                                 keep = std::move(reader.storages)] { cuda->launch(*kernel, &op); });
        break;
    }
    return info.Env().Undefined();
  });
}

template <class... Ops>
struct OpTable {
  static void install(Napi::Env env, Napi::Object exports) {
    auto signatures = Napi::Object::New(env);
    (install_one<Ops>(env, exports, signatures), ...);
    exports["signatures"] = signatures;
  }

 private:
  template <class Op>
  static void install_one(Napi::Env env, Napi::Object exports, Napi::Object signatures) {
    exports[Op::name] = Napi::Function::New<call<Op>>(env, Op::name);
    Op op;
    SignatureWriter writer;
    op.visit(writer);
    signatures[Op::name] = writer.text;
  }
};

}  // namespace binding
}  // namespace ds
