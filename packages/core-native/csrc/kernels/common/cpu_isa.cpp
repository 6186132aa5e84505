#include "cpu_isa.h"

#include <atomic>

#include "../../runtime/error.h"

namespace ds {
namespace {
std::atomic<Isa> chosen{supported_isas().front()};
}

const char* isa_name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "generic"; }

std::vector<Isa> supported_isas() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  std::vector<Isa> isas;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    isas.push_back(Isa::avx512);
  // Without AVX2 nothing here may run; the loader says so before the first kernel is called.
  isas.push_back(Isa::avx2);
  return isas;
#else
  return {Isa::generic};
#endif
}

Isa current_isa() { return chosen.load(std::memory_order_relaxed); }

void set_current_isa(const std::string& name) {
  std::string choices;
  for (Isa isa : supported_isas()) {
    if (name == isa_name(isa)) {
      chosen = isa;
      return;
    }
    choices += std::string(choices.empty() ? "" : ", ") + isa_name(isa);
  }
  throw Error("UNSUPPORTED", "set_isa", "one of " + choices, name, "leave DS_CPU_ISA unset to take the best");
}

}  // namespace ds
