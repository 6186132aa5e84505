#include "stream.h"

#include "futex.h"

namespace ds {
namespace {
// Enqueueing the next op from JavaScript takes a few microseconds: worth a short spin, not more.
constexpr int64_t kSpinNs = 20000;

Arena arena_of(int device) {
  if (kind_of(device) != DeviceKind::cuda) return Arena::on_host();
  int n = cuda_number(device);
  return Arena(std::make_unique<CudaSpace>(n), std::make_unique<CudaSpace>(n));
}

}  // namespace

Stream::Stream(int device, Account& account)
    : device_(device),
      arena_(arena_of(device)),
      cuda_(kind() == DeviceKind::cuda ? std::make_unique<CudaStream>(cuda_number(device), account) : nullptr),
      thread_([this] { work(); }) {}

Stream::~Stream() {
  stop_ = true;
  arrivals_.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(arrivals_);
  thread_.join();
}

uint64_t Stream::push(Command command) {
  uint64_t ticket;
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(command));
    ticket = ++pushed_;
  }
  arrivals_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst)) futex_wake(arrivals_);
  return ticket;
}

uint64_t Stream::enqueue(std::function<void()> command) { return push({std::move(command), nullptr}); }

uint64_t Stream::enqueue_join(std::function<void(std::optional<Error>)> command) {
  return push({nullptr, std::move(command)});
}

uint64_t Stream::last_ticket() const {
  std::lock_guard lock(mutex_);
  return pushed_;
}

uint64_t Stream::record() {
  if (!cuda_) return last_ticket();
  return enqueue([this] { cuda_->mark(done_.load(std::memory_order_relaxed) + 1); });  // under this command's number
}

void Stream::wait(std::shared_ptr<Stream> other, uint64_t ticket) {
  if (other.get() == this) return;  // ordered by the queue itself
  enqueue([this, other = std::move(other), ticket] {
    if (auto error = other->wait_done(ticket)) throw *error;
    if (!other->cuda_) return;
    auto mark = other->cuda_->marked(ticket);
    if (cuda_) {
      cuda_->depend(*other->cuda_);
      if (mark) cuda_->wait(*mark);
      return;
    }
    if (mark) mark->synchronize();
    if (auto error = other->cuda_->dependence()) throw *error;
  });
}

void Stream::trim() {
  if (cuda_) {
    wait_done(last_ticket());
    cuda_->drain();
  }
  arena_.trim();
}

std::optional<Error> Stream::wait_done(uint64_t ticket) {
  auto ready = [&] { return done_.load(std::memory_order_acquire) >= ticket; };
  if (!spin_until(ready, kSpinNs)) {
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    while (true) {
      uint32_t seen = done_word_.load(std::memory_order_acquire);
      if (ready()) break;
      futex_wait(done_word_, seen);
    }
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }
  std::lock_guard lock(mutex_);
  return error_;
}

std::optional<Error> Stream::join() {
  std::optional<Error> result;
  wait_done(enqueue_join([&result](std::optional<Error> error) { result = std::move(error); }));
  return result;
}

void Stream::work() {
  while (true) {
    Command command;
    uint32_t seen = arrivals_.load(std::memory_order_acquire);
    bool got = false;
    {
      std::lock_guard lock(mutex_);
      if (!queue_.empty()) {
        command = std::move(queue_.front());
        queue_.pop_front();
        got = true;
      }
    }
    if (!got) {
      if (stop_) return;
      auto arrived = [&] { return arrivals_.load(std::memory_order_acquire) != seen; };
      if (!spin_until(arrived, kSpinNs)) {
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        if (!arrived()) futex_wait(arrivals_, seen);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      continue;
    }
    if (command.join) {
      std::optional<Error> error;
      {
        std::lock_guard lock(mutex_);
        error.swap(error_);
      }
      if (cuda_) {
        auto later = cuda_->synchronize();
        if (!error) error = std::move(later);
      }
      command.join(std::move(error));
    } else {
      bool failed;
      {
        std::lock_guard lock(mutex_);
        failed = error_.has_value();
      }
      if (!failed) {
        try {
          command.run();
        } catch (const Error& error) {
          std::lock_guard lock(mutex_);
          error_ = error;
        } catch (const std::exception& error) {
          std::lock_guard lock(mutex_);
          error_ = Error("INTERNAL", "stream", "a command that runs", error.what(), "please report this");
        }
      }
    }
    command = {};  // what the command holds is released before anybody hears that it is done
    done_.fetch_add(1, std::memory_order_seq_cst);
    done_word_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst)) futex_wake(done_word_);
  }
}

}  // namespace ds
