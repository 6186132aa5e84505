// Row numbers that data brings: token ids.
#pragma once
#include "../../runtime/tensor.h"

namespace ds {

inline Error bad_id(const char* op, int64_t V, int64_t id, int64_t position) {
  return Error("SHAPE", op, "ids from 0 to " + std::to_string(V - 1) + " (V = " + std::to_string(V) + ")",
               std::to_string(id) + " at position " + std::to_string(position),
               "the tokenizer and the model's vocabulary disagree, or the data is not token ids");
}

// Fails with the first id outside [0, V): memory safety that only the stream can check, because it sees the values.
inline void check_ids(const char* op, const Tensor& ids, int64_t V) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t r = 0, R = ids.numel(); r < R; ++r)
    if (id[r] < 0 || id[r] >= V) throw bad_id(op, V, id[r], r);
}

}  // namespace ds
