// The one thread of a process that looks after its NCCL communicators: which calls are over, what keeps the others,
// when to give up.
#pragma once
#include <atomic>
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
  // Ends the communicators that were left, those whose other ranks are not done yet after a short while, too: NCCL and
  // CUDA must not be called any more when the process ends.
  static void see_off();

 private:
  friend class NcclCommunicator;
  NcclWatcher();
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::condition_variable rested_;
  bool woken_ = false, working_ = false;  // guarded by mutex_
  std::atomic<int> hurried_{0};
  std::vector<std::shared_ptr<NcclCommunicator>> communicators_;  // guarded by mutex_
};

}  // namespace ds
