// Which vector unit the CPU kernels use. Every `*.cpu.cpp` is compiled once for each instruction set of the build,
// in a namespace of that name; the best one that the machine has is chosen when the process starts.
#pragma once
#include <string>
#include <vector>

namespace ds {

enum class Isa { generic, avx2, avx512 };

const char* isa_name(Isa isa);
std::vector<Isa> supported_isas();  // of this build on this machine, best first
Isa current_isa();
void set_current_isa(const std::string& name);  // throws UNSUPPORTED, naming the choices

}  // namespace ds

// Declares `Op::cpu()` for an op struct: DS_CPU_KERNEL(LayerNorm, layer_norm) calls ds::<isa>::layer_norm(op).
#if defined(__x86_64__)
#define DS_CPU_KERNEL(Op, function) \
  namespace avx2 {                  \
  void function(const Op&);         \
  }                                 \
  namespace avx512 {                \
  void function(const Op&);         \
  }                                 \
  inline void Op::cpu() const { current_isa() == Isa::avx512 ? avx512::function(*this) : avx2::function(*this); }
#else
#define DS_CPU_KERNEL(Op, function) \
  namespace generic {               \
  void function(const Op&);         \
  }                                 \
  inline void Op::cpu() const { generic::function(*this); }
#endif
