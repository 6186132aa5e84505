// softmax_cross_entropy: losses[r] = log(sum_v exp(x[r, v])) - x[r, target[r]], and at once its gradient
//   dlogits[r, v] = (exp(x[r, v]) / sum - (v == target[r])) * scale
// shapes: logits, dlogits [R, V]; targets, losses [R]
// dtypes: logits, dlogits: one of f32, bf16, f16 (f64 on ref); losses f32 (f64); targets i32; arithmetic in f32
// alias: dlogits may be logits: the gradient then takes the logits' place
// targets: a row whose target is ignore_index has loss 0 and gradient 0; another one outside [0, V) fails the stream
//   before anything is written, naming it, its position and V
// scale: what the sum of losses is multiplied by later (1 / number of counted rows for their mean)
// exact: a row is cut into segments of fixed size; the bits depend on neither threads nor other rows
// limits: V >= 1; -inf is a logit of probability 0; +inf or NaN make the row's loss and gradient NaN
// source: the online normaliser of Milakov & Gimelshein 2018, alg. 3, by segments
#pragma once
#include "../../runtime/op_fields.h"
#include "../common/alias.h"
#include "../common/cpu_isa.h"
#include "../common/dispatch.h"

namespace ds {

struct SoftmaxCrossEntropy {
  static constexpr const char* name = "softmax_cross_entropy";
  Tensor losses;
  Optional dlogits;
  Tensor logits, targets;
  int64_t ignore_index;
  double scale;

  void visit(auto& v) { v(losses, dlogits, logits, targets, ignore_index, scale); }
  void check() const {
    DS_REQUIRE(logits.rank == 2 && is_float(logits.dtype) && targets.dtype == DType::i32);
    DS_REQUIRE(targets.numel() == logits.dim(0) && losses.numel() == logits.dim(0) && logits.dim(1) >= 1);
    DS_REQUIRE(losses.dtype == (logits.dtype == DType::f64 ? DType::f64 : DType::f32));
    DS_REQUIRE(!dlogits || (dlogits.numel() == logits.numel() && dlogits.dtype == logits.dtype));
    DS_REQUIRE_SAME_OR_APART(dlogits, logits);
  }
  static Error bad_target(int64_t V, int64_t ignore_index, int64_t target, int64_t position) {
    return Error("SHAPE", name,
                 "targets from 0 to " + std::to_string(V - 1) + " (V = " + std::to_string(V) + "), or " +
                     std::to_string(ignore_index) + " to ignore",
                 std::to_string(target) + " at position " + std::to_string(position),
                 "the tokenizer and the model's vocabulary disagree, or the data is not token ids");
  }
  // Fails with the first target that is neither a class nor ignored.
  void check_targets() const {
    const int32_t* target = targets.as<int32_t>();
    int64_t R = logits.dim(0), V = logits.dim(1);
    for (int64_t r = 0; r < R; ++r)
      if ((target[r] < 0 || target[r] >= V) && target[r] != ignore_index)
        throw bad_target(V, ignore_index, target[r], r);
  }
  void ref() const;
  void cpu() const;
};

DS_CPU_KERNEL(SoftmaxCrossEntropy, softmax_cross_entropy)

}  // namespace ds
