#include "cuda_stream.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

namespace ds {

void Outcome::fail(const Error& error) {
  std::lock_guard lock(mutex_);
  if (!failure_) failure_ = error;
}

std::optional<Error> Outcome::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

PinnedRing::~PinnedRing() {
  DsCudaError ignored;
  if (base_) library_.pinned_free(base_, &ignored);
}

char* PinnedRing::take(size_t bytes) {
  if (!base_) {
    void* data = nullptr;
    cuda_call(library_.pinned_allocate, kBytes, &data);
    base_ = static_cast<char*>(data);
  }
  size_t begin = next_ + bytes > kBytes ? 0 : next_;
  auto in_the_way = [&](const Part& part) { return part.begin < begin + bytes && begin < part.begin + part.bytes; };
  // In the order of the ring, so whatever is in the way is among the oldest.
  while (std::any_of(parts_.begin(), parts_.end(), in_the_way)) {
    if (parts_.front().passed) parts_.front().passed->synchronize();  // none: the copy was refused
    parts_.pop_front();
  }
  parts_.push_back({begin, bytes, nullptr});
  next_ = begin + bytes;
  return base_ + begin;
}

std::shared_ptr<CudaEvent> PinnedRing::release_after(DsCudaStream* stream) {
  auto event = std::make_shared<CudaEvent>(device_);
  cuda_call(library_.event_record, event->get(), stream);
  return parts_.back().passed = std::move(event);
}

CudaStream::CudaStream(int device, Account& account)
    : library_(CudaLibrary::for_device(device)),
      device_(device),
      account_(account),
      workspace_(account.owner_id("workspace")),
      scratch_(device),
      ring_(library_, device) {
  cuda_call(library_.stream_create, device, &stream_);
  void* fault = nullptr;
  cuda_call(library_.pinned_allocate, sizeof(DsCudaFault), &fault);
  fault_ = new (fault) DsCudaFault{};
  context_ = {stream_, &CudaStream::scratch, this, fault_};
}

CudaStream::~CudaStream() {
  DsCudaError ignored;
  library_.stream_synchronize(stream_, &ignored);
  library_.stream_destroy(stream_, &ignored);
  library_.pinned_free(fault_, &ignored);
  account_.remove(scratch_.committed_bytes(), workspace_);
}

void* CudaStream::scratch(void* self, size_t bytes, DsCudaError* error) noexcept {
  auto& stream = *static_cast<CudaStream*>(self);
  auto& space = stream.scratch_;
  size_t before = space.committed_bytes();
  auto put = [](auto& field, const std::string& text) { std::snprintf(field, sizeof field, "%s", text.c_str()); };
  try {
    if (bytes > space.bytes()) throw stream.account_.out_of_memory(bytes);
    space.touch(0, bytes);
    stream.account_.add(space.committed_bytes() - before, stream.workspace_);
    return space.base();
  } catch (const Error& e) {
    Error told = e.code == "OOM" ? stream.account_.out_of_memory(bytes) : e;
    put(error->code, told.code), put(error->op, told.op), put(error->expected, told.expected);
    put(error->actual, told.actual), put(error->hint, told.hint);
  }
  try {
    space.give_back(before, space.bytes() - before);  // behind what earlier ops use
  } catch (const Error&) {
    // It stays behind this stream, for the next op that asks.
  }
  return nullptr;
}

void CudaStream::launch(const DsCudaKernel& kernel, const void* op) {
  cuda_call(kernel.launch, op, &context_);
#ifdef DS_SANITIZE
  // Tensors come from malloc then and are freed when their command is done: let it be done.
  cuda_call(library_.stream_synchronize, stream_);
#endif
}

void CudaStream::upload(void* to, const void* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += PinnedRing::kChunkBytes) {
    size_t size = std::min(PinnedRing::kChunkBytes, bytes - at);
    char* pinned = ring_.take(size);
    std::memcpy(pinned, static_cast<const char*>(from) + at, size);
    copy(static_cast<char*>(to) + at, pinned, size);
    ring_.release_after(stream_);
  }
}

void CudaStream::download(void* to, const void* from, size_t bytes) {
  // One chunk on its way while the one before it is copied on.
  char* pinned[2] = {};
  std::shared_ptr<CudaEvent> arrived[2];
  auto size_at = [&](size_t at) { return std::min(PinnedRing::kChunkBytes, bytes - at); };
  auto fetch = [&](size_t at, int side) {
    pinned[side] = ring_.take(size_at(at));
    copy(pinned[side], static_cast<const char*>(from) + at, size_at(at));
    arrived[side] = ring_.release_after(stream_);
  };
  if (bytes) fetch(0, 0);
  int side = 0;
  for (size_t at = 0; at < bytes; at += PinnedRing::kChunkBytes, side ^= 1) {
    if (at + PinnedRing::kChunkBytes < bytes) fetch(at + PinnedRing::kChunkBytes, side ^ 1);
    arrived[side]->synchronize();
    std::memcpy(static_cast<char*>(to) + at, pinned[side], size_at(at));
  }
}

void CudaStream::copy(void* to, const void* from, size_t bytes) {
  cuda_call(library_.copy, stream_, to, from, bytes);
#ifdef DS_SANITIZE
  cuda_call(library_.stream_synchronize, stream_);
#endif
}

char* CudaStream::workspace(size_t bytes) {
  DsCudaError error{};
  void* data = scratch(this, bytes, &error);
  if (!data) throw cuda_error(error);
  return static_cast<char*>(data);
}

std::shared_ptr<CudaEvent> CudaStream::record() {
  auto event = std::make_shared<CudaEvent>(device_);
  cuda_call(library_.event_record, event->get(), stream_);
  return event;
}

void CudaStream::depend(std::shared_ptr<const Outcome> outcome) {
  std::lock_guard lock(marks_mutex_);
  if (std::find(outcomes_.begin(), outcomes_.end(), outcome) == outcomes_.end())
    outcomes_.push_back(std::move(outcome));
}

void CudaStream::depend(const CudaStream& other) {
  for (auto& outcome : other.outcomes()) depend(outcome);
}

std::vector<std::shared_ptr<const Outcome>> CudaStream::outcomes() const {
  std::lock_guard lock(marks_mutex_);
  return outcomes_;
}

std::optional<Error> CudaStream::dependence() const {
  for (auto& outcome : outcomes())
    if (auto failure = outcome->failure()) return failure;
  return std::nullopt;
}

void CudaStream::mark(uint64_t ticket) {
  auto event = record();
  std::lock_guard lock(marks_mutex_);
  marks_.emplace_back(ticket, std::move(event));
  while (marks_.size() > 1 && marks_.front().second->passed()) marks_.pop_front();
}

std::shared_ptr<CudaEvent> CudaStream::marked(uint64_t ticket) {
  std::lock_guard lock(marks_mutex_);
  auto at = std::lower_bound(marks_.begin(), marks_.end(), ticket, [](auto& m, uint64_t t) { return m.first < t; });
  return at == marks_.end() || at->first != ticket ? nullptr : at->second;
}

void CudaStream::drain() {
  DsCudaError left_for_later;
  library_.stream_synchronize(stream_, &left_for_later);
}

std::optional<Error> CudaStream::synchronize() {
  DsCudaError error{};
  int failed = library_.stream_synchronize(stream_, &error);
  auto given_up = dependence();
  {
    std::lock_guard lock(marks_mutex_);
    marks_.clear();
    outcomes_.clear();
  }
  if (given_up) return given_up;
  // The data's fault says more than what it led to.
  if (std::exchange(fault_->raised, 0u)) {
    fault_->describe(fault_, &error);
    return cuda_error(error);
  }
  if (failed) return cuda_error(error);
  return std::nullopt;
}

void CudaGraph::end(CudaStream& stream) {
  library_ = &stream.library();
  cuda_call(library_->graph_end, stream.handle(), &graph_);
}

void CudaGraph::launch(CudaStream& stream) {
  if (!graph_)
    throw Error("DISPOSED", "graph", "a graph that was recorded", "none", "its recording failed: see the error before");
  cuda_call(library_->graph_launch, graph_, stream.handle());
}

void CudaGraph::destroy() {
  DsCudaError ignored;
  if (graph_) library_->graph_destroy(graph_, &ignored);
  graph_ = nullptr;
}

}  // namespace ds
