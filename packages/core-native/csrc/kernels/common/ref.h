// Element access for the `ref` device: any dtype, as double. Plain and slow on purpose.
#pragma once
#include "../../runtime/tensor.h"

namespace ds {

inline double get(const Tensor& t, int64_t i) {
  switch (t.dtype) {
    case DType::f32:
      return t.as<float>()[i];
    case DType::bf16:
      return to_float(t.as<bf16>()[i]);
    case DType::f16:
      return to_float(t.as<f16>()[i]);
    case DType::i32:
      return t.as<int32_t>()[i];
    case DType::u8:
      return t.as<uint8_t>()[i];
    case DType::f64:
      return t.as<double>()[i];
  }
  return 0;
}

inline void put(const Tensor& t, int64_t i, double x) {
  switch (t.dtype) {
    case DType::f32:
      t.as<float>()[i] = float(x);
      break;
    case DType::bf16:
      t.as<bf16>()[i] = to_bf16(float(x));
      break;
    case DType::f16:
      t.as<f16>()[i] = to_f16(float(x));
      break;
    case DType::i32:
      t.as<int32_t>()[i] = int32_t(x);
      break;
    case DType::u8:
      t.as<uint8_t>()[i] = uint8_t(x);
      break;
    case DType::f64:
      t.as<double>()[i] = x;
      break;
  }
}

// Adds to what is there when `accumulate`, else overwrites (so that nobody has to zero gradients first).
inline void put(const Tensor& t, int64_t i, double x, bool accumulate) { put(t, i, accumulate ? get(t, i) + x : x); }

}  // namespace ds
