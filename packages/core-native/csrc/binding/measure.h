// measure(kind, elements, repeats) -> bytes or flop a second: the machine's limits, for benchmarks.
#pragma once
#include <napi.h>

namespace ds {

Napi::Value measure(const Napi::CallbackInfo& info);

}  // namespace ds
