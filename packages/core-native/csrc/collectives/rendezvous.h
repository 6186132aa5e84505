// How ranks that no launcher of ours has started (mpirun, srun, torchrun) come by the job's shared memory: rank 0 makes
// it and hands its descriptor to the others over a socket, whose name comes from a session that all of them know.
//
// The name is in no file system (Linux: an abstract address), only processes of the same user are answered, and the
// socket is closed as soon as all are served: nothing stays behind, however the ranks end.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

namespace ds {

// Gives a descriptor of the segment. Throws COMM_TIMEOUT naming the ranks that did not come, COMM on contradictions,
// ABORTED soon after `cancelled`.
int meet_at(const std::string& session, int rank, int world, int64_t timeout_ms, const std::atomic<bool>& cancelled);

}  // namespace ds
