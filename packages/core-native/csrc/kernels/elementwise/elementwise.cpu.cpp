#include "elementwise.h"

#include <algorithm>
#include <cstring>

#include "../../runtime/pool.h"
#include "../common/gelu.h"
#include "../common/ref.h"
#include "../common/vec.h"

namespace ds::DS_ISA {
namespace {

constexpr int64_t kGrain = 16384;  // elements a chunk: a few microseconds of memory traffic

// Calls body(begin, length) on the pieces of [0, n), in parallel.
template <class Body>
void for_elements(int64_t n, Body&& body) {
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) { body(begin, end - begin); });
}

bool is_vector_dtype(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16; }

// The dtypes that vec.h does not know go one by one through double, which holds all of them exactly.
void copy_slowly(const Copy& op) {
  for_elements(op.out.numel(), [&](int64_t begin, int64_t n) {
    for (int64_t i = begin; i < begin + n; ++i) put(op.out, i, op.factor * get(op.x, i));
  });
}

}  // namespace

void scale_add(const ScaleAdd& op) {
  Vec alpha = splat(float(op.alpha));
  float beta = float(op.beta);
  dispatch_float(op.a.dtype, [&]<class A>() {
    dispatch_float(op.b.dtype, [&]<class B>() {
      for_elements(op.out.numel(), [&](int64_t begin, int64_t n) {
        A* out = op.out.as<A>() + begin;
        const A* a = op.a.as<A>() + begin;
        const B* b = op.b.as<B>() + begin;
        for_lanes(n, [&](auto load_at, auto store_at) { store_at(out, fma(alpha, load_at(a), beta * load_at(b))); });
      });
    });
  });
}

void copy(const Copy& op) {
  if (op.out.dtype == op.x.dtype && op.factor == 1) {
    if (op.out.data == op.x.data) return;
    int64_t size = int64_t(dtype_bytes(op.x.dtype));
    for_elements(op.out.numel(), [&](int64_t begin, int64_t n) {
      std::memcpy(op.out.as<char>() + begin * size, op.x.as<char>() + begin * size, size_t(n * size));
    });
    return;
  }
  if (!is_vector_dtype(op.out.dtype) || !is_vector_dtype(op.x.dtype)) return copy_slowly(op);
  float factor = float(op.factor);
  dispatch_float(op.out.dtype, [&]<class O>() {
    dispatch_float(op.x.dtype, [&]<class X>() {
      for_elements(op.out.numel(), [&](int64_t begin, int64_t n) {
        O* out = op.out.as<O>() + begin;
        const X* x = op.x.as<X>() + begin;
        for_lanes(n, [&](auto load_at, auto store_at) { store_at(out, factor * load_at(x)); });
      });
    });
  });
}

void fill(const Fill& op) {
  alignas(8) unsigned char one[8];  // one element of any dtype
  Tensor element = op.out;
  element.data = one;
  put(element, 0, op.value);
  auto spread = [&]<class T>(T value) {
    std::memcpy(&value, one, sizeof value);
    for_elements(op.out.numel(), [&](int64_t begin, int64_t n) { std::fill_n(op.out.as<T>() + begin, n, value); });
  };
  switch (dtype_bytes(op.out.dtype)) {
    case 1:
      return spread(uint8_t{});
    case 2:
      return spread(uint16_t{});
    case 4:
      return spread(uint32_t{});
    default:
      return spread(uint64_t{});
  }
}

void gelu(const Gelu& op) {
  dispatch_float(op.x.dtype, [&]<class T>() {
    for_elements(op.x.numel(), [&](int64_t begin, int64_t n) {
      T* y = op.y.as<T>() + begin;
      const T* x = op.x.as<T>() + begin;
      for_lanes(n, [&](auto load_at, auto store_at) { store_at(y, gelu(load_at(x))); });
    });
  });
}

void gelu_backward(const GeluBackward& op) {
  dispatch_float(op.x.dtype, [&]<class T>() {
    for_elements(op.x.numel(), [&](int64_t begin, int64_t n) {
      T* dx = op.dx.as<T>() + begin;
      const T *dy = op.dy.as<T>() + begin, *x = op.x.as<T>() + begin;
      for_lanes(n, [&](auto load_at, auto store_at) { store_at(dx, load_at(dy) * gelu_slope(load_at(x))); });
    });
  });
}

}  // namespace ds::DS_ISA
