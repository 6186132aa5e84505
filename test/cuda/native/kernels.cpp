// Every kernel of a CUDA library against the specification, without Node: kernels LIBRARY [order of threads]
//
// Host and device hold the same bytes; `ref` works on the host's. Afterwards tensors must agree within rounding and
// every byte between them must be untouched.
#include <cmath>
#include <random>

#include "device.h"
#include "kernels/common/ref.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/norm/layer_norm.h"

namespace ds::test {
namespace {

int passed = 0, failed = 0;

class Cases {
 public:
  explicit Cases(const DsCudaLibrary& library) : mirror_(library, size_t(64) << 20) {}

  // `shift`: elements by which every tensor is off a multiple of 256 bytes.
  void begin(int64_t shift) {
    mirror_.clear();
    random_.seed(7);
    shift_ = size_t(shift);
  }

  Tensor tensor(DType dtype, std::vector<int64_t> dims, double mean = 0, double deviation = 1) {
    Tensor t;
    t.present = true;
    t.dtype = dtype;
    for (int64_t d : dims) t.dims[t.rank++] = d;
    if (t.numel() == 0) return t;
    t.data = mirror_.take(size_t(t.numel()) * dtype_bytes(dtype), shift_ * dtype_bytes(dtype));
    std::normal_distribution<double> normal(mean, deviation);
    for (int64_t i = 0; i < t.numel(); ++i) put(t, i, dtype == DType::u8 ? double(i % 256) : normal(random_));
    return t;
  }

  // `terms`: of the longest sum, `scale`: of the terms. `exact`: not a bit may differ.
  template <class Op>
  void run(Op op, const std::string& what, double terms, double scale = 1, bool exact = false) {
    std::string problem;
    try {
      op.check();
      std::vector<char> after = mirror_.run(op);
      if (mirror_.run(op) != after) problem = "two runs differ";
      op.ref();
      Comparison comparison{mirror_, after, terms, scale, exact, std::vector<bool>(after.size()), {}};
      op.visit(comparison);
      comparison.rest();
      if (problem.empty()) problem = comparison.problem;
    } catch (const Error& e) {
      problem = std::string(e.what()) + " (" + e.hint + ")";
    }
    (problem.empty() ? passed : failed)++;
    if (!problem.empty()) std::printf("FAILED %s %s: %s\n", Op::name, what.c_str(), problem.c_str());
  }

 private:
  struct Comparison {
    const Mirror& mirror;
    const std::vector<char>& after;
    double terms, scale;
    bool exact;
    std::vector<bool> seen;
    std::string problem;

    template <class... Fields>
    void operator()(Fields&... fields) {
      (compare(fields), ...);
    }
    template <class Scalar>
    void compare(Scalar&) {}
    void compare(Optional& t) { compare(static_cast<Tensor&>(t)); }
    void compare(Tensor& t) {
      if (!t.data) return;
      size_t at = size_t(static_cast<char*>(t.data) - mirror.host()), size = dtype_bytes(t.dtype);
      Tensor out = t;
      out.data = const_cast<char*>(after.data()) + at;
      double unit = t.dtype == DType::bf16 ? 0x1p-7 : t.dtype == DType::f16 ? 0x1p-10 : 0x1p-23;
      double noise = exact ? 0 : 0x1p-23 * (4 + 4 * std::sqrt(terms)) * scale;
      for (int64_t i = 0; i < t.numel(); ++i) {
        double a = get(out, i), b = get(t, i), bound = exact ? 0 : noise + unit * std::abs(b);
        if (!(std::abs(a - b) <= bound) && !(a == b) && !(std::isnan(a) && std::isnan(b)) && problem.empty())
          problem = "element " + std::to_string(i) + " of " + shape_text(t) + " is " + std::to_string(a) +
                    ", the specification says " + std::to_string(b);
      }
      for (size_t i = 0; i < size_t(t.numel()) * size; ++i) seen[at + i] = true;
    }
    void rest() {
      for (size_t i = 0; i < after.size() && problem.empty(); ++i)
        if (!seen[i] && after[i] != mirror.host()[i]) problem = "byte " + std::to_string(i) + " outside was written";
    }
  };

  Mirror mirror_;
  std::mt19937_64 random_;
  size_t shift_ = 0;
};

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};
constexpr int64_t kSizes[] = {0, 1, 7, 8, 255, 2049, 70001};  // the last one makes the emulated device stride

void elementwise(Cases& cases) {
  for (int64_t n : kSizes)
    for (int64_t shift : {0, 1, 3}) {
      std::string at = "[" + std::to_string(n) + "] + " + std::to_string(shift);
      for (DType a : kFloats) {
        for (DType b : kFloats) {
          cases.begin(shift);
          ScaleAdd op{cases.tensor(a, {n}), cases.tensor(a, {n}), cases.tensor(b, {n}), 0.3, -1.7};
          cases.run(op, at + dtype_name(a) + dtype_name(b), 2, 8);
          op.out = op.a;
          cases.run(op, at + " in place", 2, 8);
        }
        cases.begin(shift);
        Gelu gelu{cases.tensor(a, {n}), cases.tensor(a, {n}, 0, 3)};
        cases.run(gelu, at + dtype_name(a), 16);
        cases.begin(shift);
        GeluBackward backward{cases.tensor(a, {n}), cases.tensor(a, {n}), cases.tensor(a, {n}, 0, 3)};
        cases.run(backward, at + dtype_name(a), 16, 4);
      }
      DType all[] = {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8};
      for (DType out : all) {
        for (DType x : all) {
          bool whole = out == DType::i32 || out == DType::u8;
          if (whole && x != out) continue;
          for (double factor : {1.0, -0.7}) {
            if (whole && factor != 1) continue;
            cases.begin(shift);
            Copy op{cases.tensor(out, {n}), cases.tensor(x, {n}, 0, x == DType::i32 ? 1e8 : 1), factor};
            // One rounding, of the exact value: the same bits, but for the product in f32.
            cases.run(op, at + dtype_name(out) + dtype_name(x), 1, 4, factor == 1);
          }
        }
        cases.begin(shift);
        cases.run(Fill{cases.tensor(out, {n}), out == DType::u8 ? 7 : -3.25}, at + dtype_name(out), 1, 1, true);
      }
    }
}

void layer_norm(Cases& cases) {
  struct Shape {
    int64_t R, C, shift;
  };
  // A warp a row, a block a row, rows read again; odd, unaligned, empty; more rows than the emulated grid has.
  Shape shapes[] = {{1, 1, 0},    {3, 7, 0},     {5, 64, 0},    {5, 64, 1},    {2, 129, 0},
                    {0, 16, 0},   {33, 1000, 0}, {300, 32, 0},  {9, 768, 0},   {70, 1032, 0},
                    {3, 4096, 0}, {2, 14336, 0}, {2, 16384, 0}, {2, 16392, 0}, {2, 1032, 2},
                    {400, 9, 0},  {17, 1024, 0}, {40, 2048, 0}, {9000, 8, 0}};
  for (auto [R, C, shift] : shapes)
    for (DType rows : kFloats)
      for (DType weights : {rows, DType::f32})
        for (bool residual : {false, true}) {
          std::string what = "[" + std::to_string(R) + ", " + std::to_string(C) + "] " + dtype_name(rows) + " " +
                             dtype_name(weights) + (residual ? " + residual" : "");
          cases.begin(shift);
          LayerNorm op{};
          op.x = cases.tensor(rows, {R, C}, 0.5, 2);
          op.y = cases.tensor(rows, {R, C});
          op.mean = cases.tensor(DType::f32, {R});
          op.rstd = cases.tensor(DType::f32, {R});
          if (residual) {
            static_cast<Tensor&>(op.residual) = cases.tensor(rows, {R, C});
            static_cast<Tensor&>(op.sum) = cases.tensor(rows, {R, C});
          }
          op.weight = cases.tensor(weights, {C}, 1, 0.3);
          op.bias = cases.tensor(weights, {C});
          op.eps = 1e-5;
          cases.run(op, what, double(C), C == 1 ? 316 : 4);
          op.y = op.x;
          if (residual) static_cast<Tensor&>(op.sum) = op.residual;
          cases.run(op, what + " in place", double(C), C == 1 ? 316 : 4);
          for (bool accumulate : {false, true}) {
            cases.begin(shift);
            LayerNormBackward back{};
            DType grads = weights == rows ? rows : accumulate ? DType::bf16 : DType::f32;
            back.dx = cases.tensor(rows, {R, C});
            back.dweight = cases.tensor(grads, {C});
            back.dbias = cases.tensor(grads, {C});
            back.dy = cases.tensor(rows, {R, C});
            back.s = cases.tensor(rows, {R, C}, 0.5, 2);
            back.mean = cases.tensor(DType::f32, {R}, 0.5, 0.01);
            back.rstd = cases.tensor(DType::f32, {R}, 0.5, 0.01);
            back.weight = cases.tensor(weights, {C}, 1, 0.3);
            back.accumulate = accumulate;
            if (residual) static_cast<Tensor&>(back.dsum) = cases.tensor(rows, {R, C});
            double scale = 4 * std::sqrt(double(R + 1));
            cases.run(back, what + (accumulate ? " accumulate" : ""), double(std::max(R, C)), scale);
            back.dx = residual && accumulate ? Tensor(back.dsum) : back.dy;
            cases.run(back, what + " in place", double(std::max(R, C)), scale);
          }
        }
}

}  // namespace
}  // namespace ds::test

int main(int argc, char** argv) {
  using namespace ds::test;
  if (argc < 2) {
    std::fprintf(stderr, "usage: kernels LIBRARY [order]\n");
    return 2;
  }
  try {
    const DsCudaLibrary& library = open_library(argv[1]);
    if (argc > 2) {
      DsCudaEmulation settings{1, 2, size_t(1) << 30, std::strtoull(argv[2], nullptr, 10)};
      call(library.emulate, &settings);
    }
    int devices = 0;
    call(library.device_count, &devices);
    if (devices == 0) {
      std::printf("no CUDA device\n");
      return 77;
    }
    Cases cases(library);
    elementwise(cases);
    layer_norm(cases);
  } catch (const ds::Error& e) {
    std::fprintf(stderr, "kernels: %s\n", e.what());
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "kernels: %s\n", e.what());
    return 1;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
