#include "cublaslt.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

namespace ds::cuda {

// The bias' address is a field of `operation`: who runs the plan holds the mutex from setting it to the launch.
struct CublasLtPlan {
  lt::Handle handle = nullptr;
  lt::Operation operation = nullptr;
  lt::Layout a = nullptr, b = nullptr, d = nullptr;
  lt::Algorithm algorithm{};
  bool usable = false;
  std::mutex mutex;
};

namespace {

constexpr uint32_t kAlignment = 16;

enum class Choice { automatic, cublaslt, internal };

struct Settings {
  Choice choice = Choice::automatic;
  std::vector<std::string> paths;
  bool operator==(const Settings&) const = default;
};

std::mutex settings_mutex;
bool opened = false;  // settings are final from here on
Settings settings;

struct Library {
  Choice choice;
  lt::Functions functions{};
  bool found = false;
  std::string path, tried;
  size_t version = 0;

  explicit Library(const Settings& from) : choice(from.choice) {
    if (choice == Choice::internal) return;
    for (auto& path : from.paths)
      if (open(path.c_str())) return;
  }

  std::string version_text() const {  // 13.1.0 is 130100
    return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
  }

 private:
  bool open(const char* name) {
    tried += (tried.empty() ? "" : "; ");
    void* handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char* reason = dlerror();
      bool absent = std::strchr(name, '/') && access(name, F_OK) != 0;
      tried += absent || !reason ? name : reason;
      return false;
    }
    const char* missing = nullptr;
    lt::for_functions(functions, [&]<class F>(const char* symbol, F& function) {
      function = reinterpret_cast<F>(dlsym(handle, symbol));
      if (!function && !missing) missing = symbol;
    });
    if (missing) {
      tried += std::string(name) + ": has no " + missing;
      dlclose(handle);
      return false;
    }
    Dl_info info{};
    dladdr(reinterpret_cast<void*>(functions.matmul), &info);
    std::error_code ignored;
    path = std::filesystem::absolute(info.dli_fname ? info.dli_fname : name, ignored).lexically_normal();
    version = functions.get_version();
    return found = true;
  }
};

const Library& library() {
  static const Library instance([] {
    std::lock_guard lock(settings_mutex);
    opened = true;
    return settings;
  }());
  return instance;
}

void check_lt(int status, const char* op, const char* expected) {
  if (status == lt::kSuccess) return;
  throw Error("DEVICE", op, expected, "cuBLASLt's status " + std::to_string(status),
              "set DS_CUDA_GEMM=internal to use our own kernels, and please report it");
}

int type_of(DType dtype) { return dtype == DType::f32 ? lt::kF32 : dtype == DType::bf16 ? lt::kBf16 : lt::kF16; }

// The library makes its context of a device, and loads its kernels, when they are first wanted: possibly while the
// stream is recorded, when this thread may not allocate unless it says so.
class CaptureRelaxed {
 public:
  CaptureRelaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~CaptureRelaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  CaptureRelaxed(const CaptureRelaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// One a device, for the life of the process. The device is current.
lt::Handle handle_of(int device, const char* op) {
  static std::map<int, lt::Handle> handles;  // under the mutex of the plans
  lt::Handle& handle = handles[device];
  if (!handle) check_lt(library().functions.create(&handle), op, "a context of cuBLASLt on the device");
  return handle;
}

template <class Value>
void set_operation(lt::Operation operation, int attribute, Value value, const char* op) {
  check_lt(library().functions.operation_set(operation, attribute, &value, sizeof value), op,
           "an attribute of a product");
}

lt::Layout layout_of(const CublasLtMatrix& m, int64_t rows, int64_t columns, const char* op) {
  if (m.transposed) std::swap(rows, columns);
  lt::Layout layout = nullptr;  // by columns: what we call a row
  check_lt(library().functions.layout_create(&layout, type_of(m.dtype), uint64_t(columns), uint64_t(rows), m.stride),
           op, "a matrix");
  return layout;
}

// The fastest kernel by the library's own reckoning. Partial sums only in f32: other schemes would round them.
bool choose_algorithm(CublasLtPlan& plan, const char* op) {
  const lt::Functions& f = library().functions;
  lt::Preference preference = nullptr;
  check_lt(f.preference_create(&preference), op, "a preference");
  auto set = [&](int attribute, auto value) {
    check_lt(f.preference_set(preference, attribute, &value, sizeof value), op, "an attribute of a preference");
  };
  set(lt::kMaxWorkspace, uint64_t(kCublasLtWorkspace));
  set(lt::kReductions, lt::kReduceInComputeType);
  for (int attribute : {lt::kAlignmentA, lt::kAlignmentB, lt::kAlignmentC, lt::kAlignmentD}) set(attribute, kAlignment);
  lt::Heuristic result{};
  int found = 0;
  int status = f.heuristic(plan.handle, plan.operation, plan.b, plan.a, plan.d, plan.d, preference, 1, &result, &found);
  f.preference_destroy(preference);
  if (status == lt::kNotSupported || (status == lt::kSuccess && found == 0)) return false;
  check_lt(status, op, "a kernel of cuBLASLt");
  plan.algorithm = result.algorithm;
  return result.status == lt::kSuccess;
}

void make_plan(CublasLtPlan& plan, const CublasLtProduct& p, int device, const char* op) {
  plan.handle = handle_of(device, op);
  check_lt(library().functions.operation_create(&plan.operation, lt::kComputeF32, lt::kF32), op, "a product");
  // Stored by rows is transposed to the library: its first factor is B^T [N, K], its second A^T [K, M].
  set_operation(plan.operation, lt::kTransposeA, p.b.transposed ? lt::kTransposed : lt::kAsStored, op);
  set_operation(plan.operation, lt::kTransposeB, p.a.transposed ? lt::kTransposed : lt::kAsStored, op);
  set_operation(plan.operation, lt::kEpilogue, p.bias ? lt::kAddBias : lt::kNoEpilogue, op);
  // Its alignment is part of the question.
  if (p.bias) set_operation(plan.operation, lt::kBiasPointer, p.bias, op);
  plan.a = layout_of(p.a, p.M, p.K, op);
  plan.b = layout_of(p.b, p.K, p.N, op);
  plan.d = layout_of(p.d, p.M, p.N, op);
  plan.usable = choose_algorithm(plan, op);
}

}  // namespace

bool cublaslt_wanted(bool large) {
  {
    std::lock_guard lock(settings_mutex);
    if (settings.choice == Choice::internal || (settings.choice == Choice::automatic && !large)) return false;
  }
  const Library& found = library();
  if (!found.found && found.choice == Choice::cublaslt)
    throw Error("CONFIG", "DS_CUDA_GEMM=cublaslt", "cuBLASLt", found.tried.empty() ? "nowhere to look" : found.tried,
                "install NVIDIA's cuBLAS 12 or 13, or name the file with DS_CUBLASLT_PATH");
  return found.found;
}

CublasLtPlan* cublaslt_plan(const CublasLtProduct& p, CudaContext& context) {
  using Key =
      std::tuple<int, int64_t, int64_t, int64_t, DType, DType, bool, bool, int64_t, int64_t, int64_t, bool, bool>;
  static std::mutex mutex;
  static std::map<Key, std::unique_ptr<CublasLtPlan>> plans;
  std::lock_guard lock(mutex);
  Key key{context.device(), p.M,        p.N,        p.K,        p.a.dtype,         p.d.dtype,         p.a.transposed,
          p.b.transposed,   p.a.stride, p.b.stride, p.d.stride, p.bias != nullptr, p.added != nullptr};
  auto& plan = plans[key];
  if (!plan) {
    CaptureRelaxed relaxed;
    auto made = std::make_unique<CublasLtPlan>();
    make_plan(*made, p, context.device(), context.op());
    plan = std::move(made);
  }
  if (plan->usable) return plan.get();
  if (library().choice == Choice::cublaslt)
    throw Error("UNSUPPORTED", context.op(), "a product that cuBLASLt has a kernel for", "none for this one",
                "set DS_CUDA_GEMM=auto");
  return nullptr;
}

void cublaslt_run(CublasLtPlan& plan, const CublasLtProduct& p, void* workspace, CudaContext& context) {
  CaptureRelaxed relaxed;
  std::lock_guard lock(plan.mutex);
  if (p.bias) set_operation(plan.operation, lt::kBiasPointer, p.bias, context.op());
  float one = 1, beta = p.added ? 1 : 0;
  check_lt(library().functions.matmul(plan.handle, plan.operation, &one, p.b.data, plan.b, p.a.data, plan.a, &beta,
                                      p.added ? p.added : p.d.data, plan.d, p.d.data, plan.d, &plan.algorithm,
                                      workspace, kCublasLtWorkspace, context.stream()),
           context.op(), "a product by cuBLASLt");
}

void configure_gemm(const DsCudaGemm& from) {
  std::lock_guard lock(settings_mutex);
  Settings wanted;
  if (from.choice < 0 || from.choice > int(Choice::internal))
    throw Error("CONFIG", "configure products", "a choice from 0 to 2", std::to_string(from.choice));
  wanted.choice = Choice(from.choice);
  wanted.paths.assign(from.paths, from.paths + from.path_count);
  if (opened && wanted != settings)
    throw Error("CONFIG", "configure products", "a call before the first product", "a later one",
                "settings hold for the life of the process");
  settings = wanted;
}

std::string describe_gemm() {
  const Library& l = library();
  if (l.found) return "cuBLASLt " + l.version_text() + ", " + l.path;
  if (l.choice == Choice::internal) return "our own kernels, as asked";
  return "our own kernels: cuBLASLt is not found (" + (l.tried.empty() ? "nowhere to look" : l.tried) + ")";
}

}  // namespace ds::cuda
