// Shared-memory collectives through the slots: a chunk a round.
#include <algorithm>

#include "../kernels/reduce/sum_ranks.h"
#include "shm.h"

namespace ds {
namespace {

// An all_reduce of at most this is over after one round: reading everything costs less than a second meeting.
constexpr int64_t kOneRoundBytes = 64 * 1024;

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

// Adds up sources_[0 .. size).
void ShmCommunicator::sum(const Collective& op, void* out, int64_t n, bool stream) {
  SumRanks{sources_.data(), size_, op.in.dtype, out, op.out.dtype, n, op.scale, op.accumulate, stream}.cpu();
}

void ShmCommunicator::move_staged(const Collective& op) {
  switch (op.primitive) {
    case Primitive::all_reduce:
      return staged_all_reduce(op);
    case Primitive::reduce_scatter:
      return staged_reduce_scatter(op);
    case Primitive::all_gather:
    case Primitive::exchange:
      return staged_all_gather(op);
    case Primitive::broadcast:
      return staged_broadcast(op);
    case Primitive::all_to_all:
      return staged_all_to_all(op);
    default:
      return round();
  }
}

void ShmCommunicator::staged_all_reduce(const Collective& op) {
  const size_t in_size = dtype_bytes(op.in.dtype), out_size = dtype_bytes(op.out.dtype);
  const int64_t n = op.in.numel(), chunk = int64_t(options_.chunk_bytes);
  const char* in = op.in.as<char>();
  char* out = op.out.as<char>();
  if (n * int64_t(in_size) <= std::min(chunk, kOneRoundBytes)) {  // everybody adds up everything
    return steps(
        n ? 1 : 0, [&](int64_t) { std::memcpy(slot(rank_), in, size_t(n) * in_size); },
        [&](int64_t) {
          for (int q = 0; q < size_; ++q) sources_[size_t(q)] = q == rank_ ? in : slot(q);
          sum(op, out, n, false);
        });
  }
  // Two rounds a block: everybody adds up a slice of it, then everybody copies the sums. A slot holds what the others
  // want of a block, one slice after the other, our own left out.
  const int64_t others = std::max(size_ - 1, 1);
  const int64_t block = chunk / int64_t(std::max(in_size, out_size)) / others * size_;
  auto length = [&](int64_t b) { return std::min(block, n - b * block); };
  auto bound = [&](int64_t b, int q) { return length(b) * q / size_; };
  auto slice = [&](int64_t b, int q) { return bound(b, q + 1) - bound(b, q); };
  auto place = [&](int64_t b, int owner, int q) { return bound(b, q) - (q > owner ? slice(b, owner) : 0); };
  steps(
      2 * divide_up(n, block),
      [&](int64_t s) {
        int64_t b = s / 2, begin = b * block;
        if (s % 2) {
          std::memcpy(slot(rank_), out + size_t(begin + bound(b, rank_)) * out_size,
                      size_t(slice(b, rank_)) * out_size);
          return;
        }
        for (int q = 0; q < size_; ++q)
          if (q != rank_)
            std::memcpy(slot(rank_) + size_t(place(b, rank_, q)) * in_size, in + size_t(begin + bound(b, q)) * in_size,
                        size_t(slice(b, q)) * in_size);
      },
      [&](int64_t s) {
        int64_t b = s / 2, begin = b * block;
        if (s % 2 == 0) {
          for (int q = 0; q < size_; ++q) sources_[size_t(q)] = slot(q) + size_t(place(b, q, rank_)) * in_size;
          sources_[size_t(rank_)] = in + size_t(begin + bound(b, rank_)) * in_size;
          return sum(op, out + size_t(begin + bound(b, rank_)) * out_size, slice(b, rank_), false);
        }
        for (int q = 0; q < size_; ++q)
          if (q != rank_)
            std::memcpy(out + size_t(begin + bound(b, q)) * out_size, slot(q), size_t(slice(b, q)) * out_size);
      });
}

// A slot holds a piece for every rank.
void ShmCommunicator::staged_reduce_scatter(const Collective& op) {
  const size_t in_size = dtype_bytes(op.in.dtype), out_size = dtype_bytes(op.out.dtype);
  const int64_t n = op.out.numel(), piece = int64_t(options_.chunk_bytes) / int64_t(in_size) / size_;
  const char* in = op.in.as<char>();
  auto length = [&](int64_t s) { return std::min(piece, n - s * piece); };
  steps(
      divide_up(n, piece),
      [&](int64_t s) {
        for (int q = 0; q < size_; ++q)
          if (q != rank_)
            std::memcpy(slot(rank_) + size_t(q * piece) * in_size, in + size_t(q * n + s * piece) * in_size,
                        size_t(length(s)) * in_size);
      },
      [&](int64_t s) {
        for (int q = 0; q < size_; ++q) sources_[size_t(q)] = slot(q) + size_t(rank_ * piece) * in_size;
        sources_[size_t(rank_)] = in + size_t(rank_ * n + s * piece) * in_size;
        sum(op, op.out.as<char>() + size_t(s * piece) * out_size, length(s), false);
      });
}

void ShmCommunicator::staged_all_gather(const Collective& op) {
  const int64_t n = op.in.numel() * int64_t(dtype_bytes(op.in.dtype)), chunk = int64_t(options_.chunk_bytes);
  const char* in = op.in.as<char>();
  char* out = op.out.as<char>();
  auto length = [&](int64_t s) { return size_t(std::min(chunk, n - s * chunk)); };
  steps(
      divide_up(n, chunk), [&](int64_t s) { std::memcpy(slot(rank_), in + s * chunk, length(s)); },
      [&](int64_t s) {
        for (int q = 0; q < size_; ++q) {
          char* to = out + q * n + s * chunk;
          const char* from = q == rank_ ? in + s * chunk : slot(q);
          if (to != from) std::memcpy(to, from, length(s));
        }
      });
}

void ShmCommunicator::staged_broadcast(const Collective& op) {
  const int64_t n = op.out.numel() * int64_t(dtype_bytes(op.out.dtype)), chunk = int64_t(options_.chunk_bytes);
  char* data = op.out.as<char>();
  auto length = [&](int64_t s) { return size_t(std::min(chunk, n - s * chunk)); };
  steps(
      divide_up(n, chunk),
      [&](int64_t s) {
        if (rank_ == op.peer) std::memcpy(slot(rank_), data + s * chunk, length(s));
      },
      [&](int64_t s) {
        if (rank_ != op.peer) std::memcpy(data + s * chunk, slot(op.peer), length(s));
      });
}

void ShmCommunicator::staged_all_to_all(const Collective& op) {
  const int64_t n = op.in.numel() / size_ * int64_t(dtype_bytes(op.in.dtype));
  const int64_t piece = int64_t(options_.chunk_bytes) / size_ / 8 * 8;
  const char* in = op.in.as<char>();
  char* out = op.out.as<char>();
  auto length = [&](int64_t s) { return size_t(std::min(piece, n - s * piece)); };
  steps(
      divide_up(n, piece),
      [&](int64_t s) {
        for (int q = 0; q < size_; ++q) std::memcpy(slot(rank_) + q * piece, in + q * n + s * piece, length(s));
      },
      [&](int64_t s) {
        for (int q = 0; q < size_; ++q) std::memcpy(out + q * n + s * piece, slot(q) + rank_ * piece, length(s));
      });
}

}  // namespace ds
