#include "sparse_attention.h"

#include "attention_loops.h"

namespace ds {

void SparseAttention::ref() const {
  layout.validate(name);
  attend_plainly(*this);
}

void SparseAttentionBackward::ref() const {
  layout.validate(name);
  attend_backward_plainly(*this);
}

}  // namespace ds
