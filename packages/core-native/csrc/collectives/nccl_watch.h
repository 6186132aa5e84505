// The one thread of a process that looks after its NCCL communicators: which calls are over, what keeps the others,
// when to give up.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

namespace ds {

class NcclCommunicator;

class NcclWatcher {
 public:
  // Never destroyed: its thread may run until the process has ended.
  static NcclWatcher& shared();
  void add(std::shared_ptr<NcclCommunicator> communicator);
  // There is something new to see.
  void wake();

 private:
  NcclWatcher();
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;                                            // guarded by mutex_
  std::vector<std::shared_ptr<NcclCommunicator>> communicators_;  // guarded by mutex_
};

}  // namespace ds
