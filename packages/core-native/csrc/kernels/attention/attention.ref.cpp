#include "attention.h"

#include "attention_loops.h"

namespace ds {

void Attention::ref() const { attend_plainly(*this); }

void AttentionBackward::ref() const { attend_backward_plainly(*this); }

}  // namespace ds
