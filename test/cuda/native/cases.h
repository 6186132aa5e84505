// What the kernels' tests share: ops on the device against the specification on the host.
//
// Host and device hold the same bytes; `ref` works on the host's. Afterwards tensors must agree within rounding and
// every byte between them must be untouched.
#pragma once
#include <cmath>
#include <random>
#include <string_view>

#include "device.h"
#include "kernels/common/ref.h"

namespace ds::test {

inline int passed = 0, failed = 0;

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

  // The stream must fail with what the kernel found wrong in the data.
  template <class Op>
  void refuse(const Op& op, const std::string& actual) {
    std::string got = "no error";
    try {
      mirror_.run(op);
    } catch (const Error& e) {
      got = e.actual;
    }
    (got == actual ? passed : failed)++;
    if (got != actual) std::printf("FAILED %s: %s, expected %s\n", Op::name, got.c_str(), actual.c_str());
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
    // A number, or a group of fields.
    template <class Field>
    void compare(Field& field) {
      if constexpr (requires { field.visit(*this); }) field.visit(*this);
    }
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

inline constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f16};
inline constexpr int64_t kSizes[] = {0, 1, 7, 8, 255, 2049, 70001};  // the last one makes the emulated device stride

// A family of kernels, in a file of its own.
struct Family {
  std::string_view name;
  void (*run)(Cases&);
  const Family* next;
  inline static const Family* first = nullptr;
  Family(std::string_view name, void (*run)(Cases&)) : name(name), run(run), next(first) { first = this; }
};

}  // namespace ds::test
