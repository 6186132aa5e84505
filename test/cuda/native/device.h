// One device of a CUDA library, for test programs: opens the library, mirrors host memory, runs ops.
#pragma once
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "runtime/cuda_abi.h"
#include "runtime/op_fields.h"

namespace ds::test {

inline const DsCudaLibrary& open_library(const char* path) {
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw std::runtime_error(dlerror());
  auto function = reinterpret_cast<DsCudaLibraryFunction>(dlsym(handle, "ds_cuda_library"));
  if (!function) throw std::runtime_error("the library does not export ds_cuda_library");
  const DsCudaLibrary* library = function();
  if (library->version != kDsCudaAbiVersion) throw std::runtime_error("the library has another version");
  return *library;
}

// Calls a function of the library and throws what it reports.
template <class... Parameters, class... Arguments>
void call(int (*function)(Parameters...), Arguments... arguments) {
  DsCudaError e{};
  if (function(arguments..., &e) != 0) throw Error(e.code, e.op, e.expected, e.actual, e.hint);
}

// A stretch of device memory and its image on the host, tensor for tensor at the same offset.
class Mirror {
 public:
  Mirror(const DsCudaLibrary& library, size_t bytes) : library_(library), host_(bytes, char(0xff)) {
    DsCudaDevice info;
    call(library.device, 0, &info);
    bytes_ = (bytes + info.granule - 1) / info.granule * info.granule;
    call(library.reserve, 0, bytes_, &device_);
    call(library.commit, 0, device_, bytes_);
    call(library.stream_create, 0, &stream_);
    void* fault = nullptr;
    call(library.pinned_allocate, sizeof(DsCudaFault), &fault);
    fault_ = new (fault) DsCudaFault{};
    context_ = {stream_, &scratch, this, fault_};
    scratch_bytes_ = info.granule * 64;
    call(library.reserve, 0, scratch_bytes_, &scratch_);
    call(library.commit, 0, scratch_, scratch_bytes_);
  }
  ~Mirror() {
    call(library_.stream_destroy, stream_);
    call(library_.decommit, 0, device_, bytes_);
    call(library_.unreserve, 0, device_, bytes_);
    call(library_.decommit, 0, scratch_, scratch_bytes_);
    call(library_.unreserve, 0, scratch_, scratch_bytes_);
    call(library_.pinned_free, static_cast<void*>(fault_));
  }

  // All that was given out is garbage (NaN) again.
  void clear() {
    std::memset(host_.data(), 0xff, used_);
    used_ = 0;
  }

  // Memory of the next tensor, `shift` bytes behind a multiple of 256, with a gap of NaN behind it.
  void* take(size_t bytes, size_t shift) {
    size_t at = used_ + shift;
    used_ = (at + bytes + 64 + 255) / 256 * 256;
    if (used_ > host_.size()) throw std::runtime_error("the mirror is too small");
    return host_.data() + at;
  }

  // Runs the op on the device and gives what its memory then holds; `on_host` still has the host's pointers.
  template <class Op>
  std::vector<char> run(const Op& on_host) {
    return run_by(on_host, [&](auto&& launch) { launch(); });
  }

  // The same, out of a graph.
  template <class Op>
  std::vector<char> run_recorded(const Op& on_host) {
    return run_by(on_host, [&](auto&& launch) {
      call(library_.graph_begin, stream_);
      launch();
      DsCudaGraph* graph = nullptr;
      call(library_.graph_end, stream_, &graph);
      call(library_.graph_launch, graph, stream_);
      call(library_.graph_destroy, graph);
    });
  }

  const char* host() const { return host_.data(); }
  size_t used() const { return used_; }
  DsCudaStream* stream() { return stream_; }

 private:
  struct Mover {
    Mirror& mirror;
    template <class... Fields>
    void operator()(Fields&... fields) {
      (move(fields), ...);
    }
    void move(Tensor& t) {
      if (t.data) t.data = static_cast<char*>(mirror.device_) + (static_cast<char*>(t.data) - mirror.host_.data());
    }
    void move(Optional& t) { move(static_cast<Tensor&>(t)); }
    // A number, or a group of fields.
    template <class Field>
    void move(Field& field) {
      if constexpr (requires { field.visit(*this); }) field.visit(*this);
    }
  };

  template <class Op, class Queue>
  std::vector<char> run_by(const Op& on_host, Queue&& queue) {
    const DsCudaKernel* kernel = library_.find_kernel(Op::name);
    if (!kernel) throw Error("UNSUPPORTED", Op::name, "a kernel", "none");
    if (kernel->op_bytes != sizeof(Op)) throw Error("INTERNAL", Op::name, "the same struct on both sides", "another");
    Op op = on_host;
    Mover mover{*this};
    op.visit(mover);
    std::vector<char> after(used_);
    call(library_.copy, stream_, device_, host_.data(), used_);
    queue([&] { call(kernel->launch, &op, &context_); });
    call(library_.copy, stream_, after.data(), device_, used_);
    call(library_.stream_synchronize, stream_);
    if (std::exchange(fault_->raised, 0u)) {
      DsCudaError e{};
      fault_->describe(fault_, &e);
      throw Error(e.code, e.op, e.expected, e.actual, e.hint);
    }
    return after;
  }

  // NaN at first, and behind it.
  static void* scratch(void* owner, size_t bytes, DsCudaError*) {
    auto& self = *static_cast<Mirror*>(owner);
    if (bytes <= self.scratch_bytes_) {
      self.garbage_.resize(std::max(bytes + 256, self.garbage_.size()), char(0xff));
      call(self.library_.copy, self.stream_, self.scratch_, self.garbage_.data(),
           std::min(bytes + 256, self.scratch_bytes_));
      return self.scratch_;
    }
    std::fprintf(stderr, "scratch of %zu bytes is more than the tests have\n", bytes);
    std::abort();
  }

  const DsCudaLibrary& library_;
  std::vector<char> host_, garbage_;
  size_t used_ = 0, bytes_ = 0, scratch_bytes_ = 0;
  void *device_ = nullptr, *scratch_ = nullptr;
  DsCudaStream* stream_ = nullptr;
  DsCudaContext context_{};
  DsCudaFault* fault_ = nullptr;
};

}  // namespace ds::test
