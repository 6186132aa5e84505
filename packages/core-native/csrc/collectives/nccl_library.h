// NVIDIA's NCCL, opened when a group first moves tensors of a GPU.
#pragma once
#include <string>
#include <vector>

#include "nccl_abi.h"

namespace ds {

// What was found, or what was tried in vain.
struct NcclLibrary {
  struct Try {
    std::string path, problem;
  };
  bool found = false;
  NcclFunctions functions{};
  std::string path;
  int version = 0;  // 22703: 2.27.3
  std::vector<Try> tried;

  std::string version_text() const;

  // Opens the first of `candidates` (files, or names for the system's linker) that is NCCL, for the life of the
  // process. Later calls give what the first success gave.
  static const NcclLibrary& open(const std::vector<std::string>& candidates);
  // What `open` has found. Throws UNSUPPORTED, with all that was tried, when that is nothing.
  static const NcclLibrary& get();
};

}  // namespace ds
