// The collectives' part of the addon's export table. Groups are small numbers, as streams are.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>

#include "../collectives/communicator.h"
#include "../collectives/nccl.h"
#include "env.h"

namespace ds {

// A group as one environment holds it: from before it is open until it is destroyed.
class Group {
 public:
  void set(std::shared_ptr<HostCommunicator> communicator);
  std::shared_ptr<HostCommunicator> get() const;
  // For tensors of a GPU; null until somebody has asked for it.
  void set_cuda(std::shared_ptr<NcclCommunicator> communicator);
  std::shared_ptr<NcclCommunicator> cuda() const;
  // Leaves the group now, or as soon as it is open.
  void close();
  // For a rendezvous: it is of no use any more.
  const std::atomic<bool>& closing() const { return closing_; }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<HostCommunicator> communicator_;
  std::shared_ptr<NcclCommunicator> cuda_;
  std::atomic<bool> closing_{false};
};

namespace binding {
void install_collectives(Napi::Env env, Napi::Object exports);
}

}  // namespace ds
