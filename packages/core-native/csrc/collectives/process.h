// What ranks must know of each other's processes: who is alive, and how to read the memory of another one.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ds {

// Names a process for good: a pid alone may be used again. `space` is the pid namespace; `start` 0 is "cannot tell".
struct ProcessId {
  int64_t pid = 0;
  uint64_t start = 0, space = 0;
};

ProcessId this_process();
// False when the process is gone, or a zombie. True where this one cannot tell (another pid namespace).
bool is_alive(const ProcessId& process);

// Makes the system kill this process when its parent ends, however that happens. False when the parent is not
// `parent` (any more): the caller should end. Without such a service of the system (macOS) it only looks.
bool die_with_parent(int64_t parent);

// Lets the other children of our parent read our memory where the system restricts that (Yama).
void allow_siblings_to_read();
// Copies `bytes` from the address space of another process. 0, or the errno.
int read_memory(int64_t pid, void* to, uint64_t from, size_t bytes);

}  // namespace ds
