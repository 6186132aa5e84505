#include "call.h"

#include <cstring>

namespace ds {

void set_tag(Call& call, const std::string& tag) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (unsigned char c : tag) hash = (hash ^ c) * 0x100000001b3u;
  call.tag_hash = hash;
  std::memset(call.tag, 0, sizeof call.tag);
  std::memcpy(call.tag, tag.data(), std::min(tag.size(), sizeof call.tag - 1));
}

bool same_collective(const Call& a, const Call& b) {
  return a.primitive == b.primitive && a.sequence == b.sequence && a.count == b.count && a.dtype == b.dtype &&
         a.out_dtype == b.out_dtype && a.peer == b.peer && a.scale == b.scale && a.accumulate == b.accumulate &&
         a.tag_hash == b.tag_hash;
}

std::string short_name(const Call& call) {
  std::string text = primitive_name(call.primitive);
  if (call.tag[0]) text += " \"" + std::string(call.tag, strnlen(call.tag, sizeof call.tag)) + "\"";
  return text;
}

std::string describe(const Call& call) {
  std::string text = primitive_name(call.primitive);
  text += " #" + std::to_string(call.sequence);
  if (call.tag[0]) text += " \"" + std::string(call.tag, strnlen(call.tag, sizeof call.tag)) + "\"";
  if (call.primitive == Primitive::barrier || call.primitive == Primitive::hello || call.primitive == Primitive::split)
    return text;
  text += std::string(" ") + dtype_name(call.dtype);
  if (call.out_dtype != call.dtype) text += std::string("->") + dtype_name(call.out_dtype);
  text += " x " + std::to_string(call.count) + " (" + std::to_string(call.bytes) + " bytes)";
  if (call.primitive == Primitive::broadcast) text += " from " + std::to_string(call.peer);
  if (call.primitive == Primitive::send) text += " to " + std::to_string(call.peer);
  if (call.primitive == Primitive::recv) text += " from " + std::to_string(call.peer);
  if (call.scale != 1) text += " scale " + std::to_string(call.scale);
  if (call.accumulate) text += " accumulate";
  return text;
}

}  // namespace ds
