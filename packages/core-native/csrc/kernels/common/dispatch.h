// From a run-time dtype to a template argument.
#pragma once
#include "../../runtime/tensor.h"

namespace ds {

// Calls fn.operator()<T>() with T = float, bf16 or f16.
template <class F>
void dispatch_float(DType dtype, F&& fn) {
  switch (dtype) {
    case DType::f32:
      return fn.template operator()<float>();
    case DType::bf16:
      return fn.template operator()<bf16>();
    case DType::f16:
      return fn.template operator()<f16>();
    default:
      throw Error("DTYPE", "dispatch", "f32, bf16 or f16", dtype_name(dtype), "cast the tensor first");
  }
}

// Calls fn.operator()<T, W>() with the dtype of rows and that of the weights which go with them, T or float.
template <class F>
void dispatch_rows(DType rows, DType weights, F&& fn) {
  dispatch_float(rows, [&]<class T>() {
    if (weights == DType::f32) return fn.template operator()<T, float>();
    fn.template operator()<T, T>();
  });
}

inline bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f16 || t == DType::f64; }

}  // namespace ds
