// The thread pool: all arithmetic of the process runs here, on the calling stream's thread and `threads - 1` workers.
//
// A job is a number of chunks; whoever is free takes the next one, so a worker that lost its core delays its own
// chunk only. How work is cut into chunks must depend on the problem alone, never on the number of threads: that
// is what makes results bitwise the same on any machine size.
#pragma once
#include <cstdint>

namespace ds {

class Pool {
 public:
  static Pool& shared();

  // Calls fn(context, chunk) once for every chunk in [0, chunks), in any order, and returns when all are done.
  // From inside a chunk, or while another stream's job holds the workers, it runs the chunks in the calling thread.
  void run(int64_t chunks, void (*fn)(void*, int64_t), void* context);

  int threads() const;
  // Waits for running jobs, then changes the number of threads (>= 1).
  void resize(int threads);

 private:
  Pool();
  ~Pool();
  struct State;
  State* state_;
};

template <class F>
void parallel_for(int64_t chunks, F&& fn) {
  Pool::shared().run(
      chunks, [](void* f, int64_t i) { (*static_cast<F*>(f))(i); }, &fn);
}

// Calls fn(begin, end) over [0, n) cut into pieces of `grain`.
template <class F>
void parallel_ranges(int64_t n, int64_t grain, F&& fn) {
  if (n <= 0) return;
  parallel_for((n + grain - 1) / grain, [&](int64_t c) { fn(c * grain, (c + 1) * grain < n ? (c + 1) * grain : n); });
}

}  // namespace ds
