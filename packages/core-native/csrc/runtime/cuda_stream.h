// The CUDA half of a stream: what its thread calls to queue work on the device, and to wait for it.
//
// All functions but `launch`'s kernel are called by one thread at a time: the stream's own, or another one while that
// has nothing to do.
#pragma once
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "cuda_library.h"
#include "cuda_memory.h"
#include "memory.h"

namespace ds {

// What became of work on a device that the device itself cannot tell, such as a collective that was given up. Shared by
// who knows, and by the streams whose later work builds on it.
class Outcome {
 public:
  void fail(const Error& error);  // the first one counts
  std::optional<Error> failure() const;

 private:
  mutable std::mutex mutex_;
  std::optional<Error> failure_;
};

// A point in a CUDA stream. Destroyed where the last holder lets go.
class CudaEvent {
 public:
  explicit CudaEvent(int device) : library_(CudaLibrary::for_device(device)) {
    cuda_call(library_.event_create, device, &event_);
  }
  ~CudaEvent() {
    DsCudaError ignored;
    library_.event_destroy(event_, &ignored);
  }
  CudaEvent(const CudaEvent&) = delete;
  DsCudaEvent* get() const { return event_; }
  void synchronize() const { cuda_call(library_.event_synchronize, event_); }
  bool passed() const {
    int done = 0;
    cuda_call(library_.event_query, event_, &done);
    return done;
  }

 private:
  const DsCudaLibrary& library_;
  DsCudaEvent* event_ = nullptr;
};

// Page-locked memory through which pageable memory of the host travels: a ring, each part free again once its copy has
// passed.
class PinnedRing {
 public:
  static constexpr size_t kBytes = 32 << 20, kChunkBytes = 8 << 20;

  PinnedRing(const DsCudaLibrary& library, int device) : library_(library), device_(device) {}
  ~PinnedRing();
  // Room for up to kChunkBytes; waits for older copies where there is none.
  char* take(size_t bytes);
  // The part taken last is free once `stream` has come this far; gives that point.
  std::shared_ptr<CudaEvent> release_after(DsCudaStream* stream);

 private:
  struct Part {
    size_t begin, bytes;
    std::shared_ptr<CudaEvent> passed;
  };
  const DsCudaLibrary& library_;
  int device_;
  char* base_ = nullptr;
  size_t next_ = 0;
  std::deque<Part> parts_;  // oldest first; the newest may have no event yet
};

class CudaStream {
 public:
  // Scratch memory is booked in `account` under `workspace`.
  CudaStream(int device, Account& account);
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;

  int device() const { return device_; }
  void launch(const DsCudaKernel& kernel, const void* op);
  // Copies between pageable memory of the host and the device. `upload` may return before the copy has happened, but
  // `from` is free again; `download` returns after it.
  void upload(void* to, const void* from, size_t bytes);
  void download(void* to, const void* from, size_t bytes);
  // Copies within this device, or from another one.
  void copy(void* to, const void* from, size_t bytes);
  // Memory for one command, in stream order, as a kernel's scratch is: a kernel that asks for some gets the same.
  char* workspace(size_t bytes);

  // Marks this point for waiters: number `ticket` of the stream's commands.
  void mark(uint64_t ticket);
  // The mark of a ticket; null when it has passed.
  std::shared_ptr<CudaEvent> marked(uint64_t ticket);
  // Holds this stream back, not the caller.
  void wait(const CudaEvent& event) { cuda_call(library_.event_wait, stream_, event.get()); }
  std::shared_ptr<CudaEvent> record();

  // The next `synchronize` tells of this failure, should there be one.
  void depend(std::shared_ptr<const Outcome> outcome);
  // On all that `other` depends on.
  void depend(const CudaStream& other);
  // The failure of what is depended on, if there is one.
  std::optional<Error> dependence() const;

  // Waits for everything queued. Gives what went wrong since the last time, on the device or in the data.
  std::optional<Error> synchronize();
  // The same, and leaves what went wrong for the next `synchronize`.
  void drain();

  void begin_graph() { cuda_call(library_.graph_begin, stream_); }
  DsCudaStream* handle() const { return stream_; }
  const DsCudaLibrary& library() const { return library_; }

 private:
  static void* scratch(void* self, size_t bytes, DsCudaError* error) noexcept;
  std::vector<std::shared_ptr<const Outcome>> outcomes() const;

  const DsCudaLibrary& library_;
  int device_;
  Account& account_;
  uint16_t workspace_;
  DsCudaStream* stream_ = nullptr;
  DsCudaFault* fault_ = nullptr;
  CudaSpace scratch_;
  DsCudaContext context_{};
  PinnedRing ring_;
  mutable std::mutex marks_mutex_;
  std::vector<std::shared_ptr<const Outcome>> outcomes_;  // guarded by marks_mutex_; of what is not joined yet
  std::deque<std::pair<uint64_t, std::shared_ptr<CudaEvent>>> marks_;  // that have not passed, by ticket
};

// Work that a stream recorded. Used by the thread of that stream.
class CudaGraph {
 public:
  CudaGraph() = default;
  ~CudaGraph() { destroy(); }
  CudaGraph(const CudaGraph&) = delete;
  void end(CudaStream& stream);
  void launch(CudaStream& stream);
  void destroy();

 private:
  const DsCudaLibrary* library_ = nullptr;
  DsCudaGraph* graph_ = nullptr;
};

}  // namespace ds
