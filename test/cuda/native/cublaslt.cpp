// The binding of cuBLASLt against a stand-in of ours: cublaslt LIBRARY STAND-IN cublaslt|auto|internal|missing
#include "linear_cases.h"

namespace ds::test {
namespace {

void expect(bool ok, const std::string& what, const std::string& got = "") {
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAILED %s: %s\n", what.c_str(), got.c_str());
}

template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return std::string(e.what()) + " | " + e.hint;
  }
  return "";
}

class StandIn {
 public:
  explicit StandIn(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (!handle_) throw std::runtime_error(dlerror());
  }
  // Products that `body` gave it.
  template <class Body>
  int products_of(Body&& body) {
    int before = count();
    body();
    return count() - before;
  }
  void refuse(bool refuse) { reinterpret_cast<void (*)(bool)>(dlsym(handle_, "fake_cublaslt_refuse"))(refuse); }

 private:
  int count() { return reinterpret_cast<int (*)()>(dlsym(handle_, "fake_cublaslt_products"))(); }
  void* handle_;
};

std::string description(const DsCudaLibrary& library) {
  char text[2048];
  call(library.gemm_library, text, sizeof text);
  return text;
}

// A product whose epilogue is ours is made in slabs: here 256 rows and 44.
void slabs(Cases& cases, StandIn& library) {
  cases.begin(0);
  Linear op{};
  op.x = cases.tensor(DType::bf16, {300, 8});
  op.weight = cases.tensor(DType::bf16, {32768, 8}, 0, 0.35);
  op.y = cases.tensor(DType::bf16, {300, 32768});
  static_cast<Tensor&>(op.bias) = cases.tensor(DType::bf16, {32768});
  static_cast<Tensor&>(op.pre) = cases.tensor(DType::bf16, {300, 32768});
  op.gelu = true;
  int made = library.products_of([&] { cases.run(op, "in slabs", 8, 4); });
  expect(made == 4, "two slabs of each of two runs", std::to_string(made));
}

// One shape, so one plan, and biases at two addresses.
void biases(Cases& cases) {
  cases.begin(0);
  Linear op{};
  op.x = cases.tensor(DType::f32, {12, 20});
  op.weight = cases.tensor(DType::f32, {28, 20}, 0, 0.2);
  op.y = cases.tensor(DType::f32, {12, 28});
  for (const Tensor& bias : {cases.tensor(DType::f32, {28}), cases.tensor(DType::f32, {28})}) {
    op.bias = optional(bias);
    cases.run(op, "with another bias", 20, 4);
  }
}

Linear product(Mirror& mirror, DType dtype, int64_t R, int64_t K, int64_t N) {
  auto tensor = [&](std::vector<int64_t> dims) {
    Tensor t;
    t.present = true;
    t.dtype = dtype;
    for (int64_t d : dims) t.dims[t.rank++] = d;
    t.data = mirror.take(size_t(t.numel()) * dtype_bytes(dtype), 0);
    for (int64_t i = 0; i < t.numel(); ++i) put(t, i, double(i % 7) - 3);
    return t;
  };
  Linear op{};
  op.x = tensor({R, K}), op.weight = tensor({N, K}), op.y = tensor({R, N});
  return op;
}

void everything(const DsCudaLibrary& library, StandIn& stand_in) {
  Cases cases(library);
  // Two runs each of 7 forms, of 2 gradients of the input and of 4 of the weight.
  for (const LinearShape& shape : {LinearShape{9, 8, 16, 0}, {17, 40, 64, 0}, {70, 136, 24, 0}, {33, 16, 72, 8}})
    for (DType dtype : kFloats) {
      int made = stand_in.products_of([&] { linear_case(cases, shape, dtype, dtype); });
      expect(made == 26, "all products by the library", std::to_string(made));
    }
  // f32 sums of 16-bit factors, as mixed precision wants its gradients.
  for (DType dtype : {DType::bf16, DType::f16}) {
    int made = stand_in.products_of([&] { linear_case(cases, {24, 32, 16, 0}, dtype, DType::f32); });
    expect(made == 8, "the weight's gradients by the library", std::to_string(made));
  }
  // Few rows, odd rows and views that start anywhere are ours.
  for (const LinearShape& shape : {LinearShape{17, 33, 31, 0}, {16, 24, 32, 1}}) {
    int made = stand_in.products_of([&] { linear_case(cases, shape, DType::bf16, DType::bf16); });
    expect(made == 0, "no product by the library", std::to_string(made));
  }
  slabs(cases, stand_in);
  int biased = stand_in.products_of([&] { biases(cases); });
  expect(biased == 4, "two runs with each bias", std::to_string(biased));

  Mirror mirror(library, size_t(1) << 20);
  Linear op = product(mirror, DType::bf16, 32, 64, 48);
  std::vector<char> once = mirror.run(op);
  expect(mirror.run_recorded(op) == once, "the same from a graph");
  stand_in.refuse(true);
  expect(mirror.run(op) == once, "a known shape needs no second question");
  op = product(mirror, DType::bf16, 32, 64, 56);
  std::string error = error_of([&] { mirror.run(op); });
  expect(error.find("UNSUPPORTED") != std::string::npos || error.find("kernel") != std::string::npos, "refused", error);
}

void automatic(const DsCudaLibrary& library, StandIn& stand_in) {
  Mirror mirror(library, size_t(16) << 20);
  Linear large = product(mirror, DType::f32, 256, 1024, 512), small = product(mirror, DType::f32, 16, 64, 64);
  std::vector<char> made;
  expect(stand_in.products_of([&] { mirror.run(small); }) == 0, "a small product is ours");
  expect(stand_in.products_of([&] { made = mirror.run(large); }) == 1, "a large product is the library's");
  stand_in.refuse(true);
  Linear other = product(mirror, DType::f32, 256, 1024, 520);
  expect(stand_in.products_of([&] { mirror.run(other); }) == 0, "what the library refuses is ours");
}

int run(const char* path, const char* stand_in_path, const std::string& mode) {
  const DsCudaLibrary& library = open_library(path);
  DsCudaEmulation emulation{1, 2, size_t(1) << 30, 5};
  call(library.emulate, &emulation);
  StandIn stand_in(stand_in_path);
  bool missing = mode == "missing";
  const char* paths[] = {"/nowhere/libcublasLt.so.13", missing ? path : stand_in_path};
  DsCudaGemm settings{mode == "auto" ? 0 : mode == "internal" ? 2 : 1, paths, 2};
  call(library.set_gemm, &settings);
  if (missing) {
    Mirror mirror(library, size_t(1) << 20);
    Linear op = product(mirror, DType::f32, 16, 64, 64);
    std::string error = error_of([&] { mirror.run(op); });
    for (const char* part :
         {"DS_CUDA_GEMM=cublaslt", "/nowhere/libcublasLt.so.13", "has no cublasLt", "DS_CUBLASLT_PATH"})
      expect(error.find(part) != std::string::npos, std::string("the error says ") + part, error);
  }
  std::string text = description(library);
  std::string wanted = missing ? "not found" : mode == "internal" ? "our own kernels, as asked" : "cuBLASLt 13.1.2, /";
  expect(text.find(wanted) != std::string::npos, "gemm_library says " + wanted, text);
  call(library.set_gemm, &settings);
  settings.path_count = 1;
  std::string late = error_of([&] { call(library.set_gemm, &settings); });
  expect(late.find("before the first product") != std::string::npos, "settings are final", late);
  if (mode == "cublaslt") everything(library, stand_in);
  if (mode == "auto") automatic(library, stand_in);
  if (mode == "internal") {
    Cases cases(library);
    int made = stand_in.products_of([&] { linear_case(cases, {17, 40, 64, 0}, DType::bf16, DType::bf16); });
    expect(made == 0, "no product by the library", std::to_string(made));
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace ds::test

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: cublaslt LIBRARY STAND-IN cublaslt|auto|internal|missing\n");
    return 2;
  }
  try {
    return ds::test::run(argv[1], argv[2], argv[3]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "cublaslt: %s\n", e.what());
    return 1;
  }
}
