// The field types of an op struct beside Tensor, double, int64_t and bool. Kernels include this; only csrc/binding
// knows N-API.
#pragma once
#include "../runtime/tensor.h"

namespace ds {

// A tensor argument that may be absent (id 0 in JavaScript).
struct Optional : Tensor {};

}  // namespace ds
