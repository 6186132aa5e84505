// The table of ops: one row each. Adding an op is one include and one row here, and its twin in src/binding.ts.
#pragma once
#include "../kernels/norm/layer_norm.h"
#include "op.h"

namespace ds::binding {

using Ops = OpTable<  //
    LayerNorm,        //
    LayerNormBackward>;

}  // namespace ds::binding
