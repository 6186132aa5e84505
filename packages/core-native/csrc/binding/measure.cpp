#include "measure.h"

#include <string>

#include "../kernels/common/measure.h"
#include "../runtime/error.h"

namespace ds {

Napi::Value measure(const Napi::CallbackInfo& info) {
  std::string kind = info[0].As<Napi::String>().Utf8Value(), choices;
  int64_t elements = info[1].As<Napi::Number>().Int64Value();
  int repeats = info[2].As<Napi::Number>().Int32Value();
  for (int i = 0; i < int(std::size(kRooflineNames)); ++i) {
    if (kind == kRooflineNames[i])
      return Napi::Number::New(info.Env(), measure_roofline(Roofline(i), elements, repeats < 1 ? 1 : repeats));
    choices += std::string(i ? ", " : "") + kRooflineNames[i];
  }
  throw Error("UNSUPPORTED", "measure", "one of " + choices, kind, "");
}

}  // namespace ds
