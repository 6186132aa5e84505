// Shared-memory messages from one rank to another.
#include <algorithm>

#include "shm.h"

namespace ds {
namespace {

int64_t steps_of(int64_t bytes, int64_t chunk) { return std::max<int64_t>(1, (bytes + chunk - 1) / chunk); }

}  // namespace

void ShmCommunicator::send(const Collective& op) {
  Pair& pair = members_->pair(rank_, op.peer);
  uint32_t& step = sent_[size_t(op.peer)];
  int64_t bytes = int64_t(current_.bytes), chunk = int64_t(options_.chunk_bytes);
  bool whole = pulls(current_);
  pair.call.store(current_);
  int64_t count = whole ? 1 : steps_of(bytes, chunk);
  for (int64_t s = 0; s < count; ++s) {
    if (!whole && bytes) {
      await_pair(pair.taken, pair.taken_sleepers, step - uint32_t(s > 0), op.peer);  // two slots: one may be in use
      std::memcpy(members_->slot(rank_, 2 + int(s & 1)), op.in.as<char>() + s * chunk,
                  size_t(std::min(chunk, bytes - s * chunk)));
    }
    announce(pair.sent, ++step, pair.sent_sleepers);
  }
  await_pair(pair.taken, pair.taken_sleepers, step, op.peer);
}

void ShmCommunicator::receive(const Collective& op) {
  Pair& pair = members_->pair(op.peer, rank_);
  uint32_t& step = taken_[size_t(op.peer)];
  int64_t bytes = int64_t(current_.bytes), chunk = int64_t(options_.chunk_bytes);
  await_pair(pair.sent, pair.sent_sleepers, step + 1, op.peer);
  Call theirs = pair.call.load();
  if (theirs.count != current_.count || theirs.dtype != current_.dtype || theirs.tag_hash != current_.tag_hash)
    throw members_->message_mismatch(theirs, current_);
  bool whole = pulls(current_);
  int64_t count = whole ? 1 : steps_of(bytes, chunk);
  for (int64_t s = 0; s < count; ++s) {
    await_pair(pair.sent, pair.sent_sleepers, step + 1, op.peer);
    if (whole)
      pull(op.peer, op.out.data, theirs.address, size_t(bytes));
    else if (bytes)
      std::memcpy(op.out.as<char>() + s * chunk, members_->slot(op.peer, 2 + int(s & 1)),
                  size_t(std::min(chunk, bytes - s * chunk)));
    announce(pair.taken, ++step, pair.taken_sleepers);
  }
}

}  // namespace ds
