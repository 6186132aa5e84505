// The field types of an op struct beside Tensor, double, int64_t and bool, and beside structs with a visit() of their
// own, which stand for their fields. Kernels include this; only csrc/binding knows N-API.
#pragma once
#include "../runtime/tensor.h"

namespace ds {

// A tensor argument that may be absent (id 0 in JavaScript).
struct Optional : Tensor {};

}  // namespace ds
