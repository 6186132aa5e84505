// Numbers of a packed weight on the device.
#pragma once
#include "../../cuda/types.cuh"
#include "packed_weight.h"

namespace ds::cuda {

// The number in column c of lane l of a block.
template <PackedFormat kFormat>
__device__ __forceinline__ float number_at(const uint8_t* block, int c, int l) {
  const uint8_t* p = block + packed_offset(kFormat, c, l);
  if constexpr (kFormat == PackedFormat::f32) return *reinterpret_cast<const float*>(p);
  if constexpr (kFormat == PackedFormat::bf16) return to_f32(*reinterpret_cast<const bf16*>(p));
  if constexpr (kFormat == PackedFormat::f16) return to_f32(*reinterpret_cast<const f16*>(p));
  float scale = to_f32(reinterpret_cast<const f16*>(block)[l]);
  if constexpr (kFormat == PackedFormat::q8) return scale * float(int8_t(*p));
  return scale * float((*p >> (c < 16 ? 0 : 4) & 15) - 8);
}

}  // namespace ds::cuda
