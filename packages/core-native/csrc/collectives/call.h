// What a rank calls: the header that ranks compare before any data moves, and the record that a time-out reports.
#pragma once
#include <cstdint>
#include <string>

#include "../runtime/dtype.h"

namespace ds {

// The values cross the native boundary: keep in step with src/collectives/primitives.ts.
enum class Primitive : uint8_t {
  all_reduce = 0,
  reduce_scatter = 1,
  all_gather = 2,
  broadcast = 3,
  all_to_all = 4,
  send = 5,
  recv = 6,
  barrier = 7,
  exchange = 8,  // all_gather of the program's own notes: counted apart from the data
  hello = 9,     // the first meeting of a communicator
  split = 10,
};
constexpr int kPrimitives = 11;

constexpr const char* primitive_name(Primitive p) {
  constexpr const char* names[kPrimitives] = {"allReduce", "reduceScatter", "allGather", "broadcast",
                                              "allToAll",  "send",          "recv",      "barrier",
                                              "exchange",  "hello",         "split"};
  return names[int(p)];
}
constexpr bool is_pairwise(Primitive p) { return p == Primitive::send || p == Primitive::recv; }

// Plain words, because it lies in memory that several processes map. All zero: no call.
struct Call {
  uint64_t number = 0;       // of this rank's calls on this communicator, from 1
  uint64_t sequence = 0;     // of the collective, or of the message between two ranks, from 1
  uint64_t address = 0;      // of `in` in this rank's memory: what the others read
  uint64_t out_address = 0;  // of `out`
  uint64_t count = 0;        // elements of the full tensor
  uint64_t bytes = 0;        // the same in bytes of `in`
  uint64_t tag_hash = 0;     // of the whole tag
  double scale = 1;
  Primitive primitive = Primitive::barrier;
  DType dtype = DType::f32, out_dtype = DType::f32;
  bool accumulate = false;
  int32_t peer = -1;  // the root of a broadcast; the other end of a message
  char tag[48] = {};  // its beginning, for people
};
static_assert(sizeof(Call) == 120 && sizeof(Call) % 8 == 0);

void set_tag(Call& call, const std::string& tag);

// True when two ranks mean the same collective.
bool same_collective(const Call& a, const Call& b);

// allReduce #12 "grads.3" f32 x 1024
std::string describe(const Call& call);
// allReduce "grads.3": the op of an error
std::string short_name(const Call& call);

}  // namespace ds
