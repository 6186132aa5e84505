#include "communicator.h"

#include "../kernels/common/dispatch.h"

namespace ds {
namespace {

size_t bytes_of(const Tensor& t) { return size_t(t.numel()) * dtype_bytes(t.dtype); }

bool apart(const Tensor& a, const Tensor& b) {
  auto *a0 = static_cast<const char*>(a.data), *b0 = static_cast<const char*>(b.data);
  return a0 + bytes_of(a) <= b0 || b0 + bytes_of(b) <= a0;
}

// Where `part` may overlap `full`: exactly on slice `rank`, or not at all.
bool slice_or_apart(const Tensor& part, const Tensor& full, int rank) {
  return apart(part, full) ||
         (part.dtype == full.dtype && part.data == full.as<char>() + size_t(rank) * bytes_of(part));
}

bool reducible(const Tensor& out, const Tensor& in) {
  bool wider = out.dtype == DType::f32 && (in.dtype == DType::bf16 || in.dtype == DType::f16);
  return is_float(in.dtype) && (out.dtype == in.dtype || wider);
}

void check(const Collective& op, int rank, int size) {
  const char* name = primitive_name(op.primitive);
  const Tensor &out = op.out, &in = op.in;
  switch (op.primitive) {
    case Primitive::all_reduce:
      DS_REQUIRE(out.numel() == in.numel() && reducible(out, in));
      DS_REQUIRE((out.data == in.data && out.dtype == in.dtype) || apart(out, in));
      break;
    case Primitive::reduce_scatter:
      DS_REQUIRE(out.numel() * size == in.numel() && reducible(out, in));
      DS_REQUIRE(slice_or_apart(out, in, rank));
      break;
    case Primitive::all_gather:
    case Primitive::exchange:
      DS_REQUIRE(in.numel() * size == out.numel() && out.dtype == in.dtype);
      DS_REQUIRE(slice_or_apart(in, out, rank));
      break;
    case Primitive::all_to_all:
      DS_REQUIRE(out.numel() == in.numel() && out.numel() % size == 0 && out.dtype == in.dtype);
      DS_REQUIRE(apart(out, in));
      break;
    case Primitive::broadcast:
      DS_REQUIRE(op.peer >= 0 && op.peer < size);
      break;
    case Primitive::send:
    case Primitive::recv:
      DS_REQUIRE(op.peer >= 0 && op.peer < size && op.peer != rank);
      break;
    default:
      break;
  }
}

}  // namespace

Call call_of(const Collective& op) {
  Call call;
  call.primitive = op.primitive;
  const Tensor& in = op.in.present ? op.in : op.out;
  const Tensor& out = op.out.present ? op.out : op.in;
  call.dtype = in.dtype, call.out_dtype = out.dtype;
  call.address = reinterpret_cast<uint64_t>(in.data), call.out_address = reinterpret_cast<uint64_t>(out.data);
  if (in.present || out.present) call.count = uint64_t(std::max(in.numel(), out.numel()));
  call.bytes = call.count * dtype_bytes(call.dtype);
  call.scale = op.scale, call.accumulate = op.accumulate, call.peer = op.peer;
  set_tag(call, op.tag);
  return call;
}

void Communicator::count(const Collective& op) {
  Traffic& t = traffic_[int(op.primitive)];
  uint64_t n = uint64_t(std::max(op.in.present ? op.in.numel() : 0, op.out.present ? op.out.numel() : 0));
  uint64_t N = uint64_t(size_), in = dtype_bytes(op.in.dtype), out = dtype_bytes(op.out.dtype);
  ++t.calls;
  auto add = [&](uint64_t elements, uint64_t bytes_each) {
    t.elements_times_ranks += elements;
    t.bytes_times_ranks += elements * bytes_each;
  };
  switch (op.primitive) {
    case Primitive::all_reduce:
      add((N - 1) * n, in);
      add((N - 1) * n, out);
      break;
    case Primitive::reduce_scatter:
    case Primitive::all_gather:
    case Primitive::exchange:
    case Primitive::all_to_all:
      add((N - 1) * n, in);
      break;
    case Primitive::broadcast:
      if (op.peer == rank_ && N > 1) add(N * n, in);
      break;
    case Primitive::send:
      add(N * n, in);
      break;
    default:
      break;
  }
}

// The place of one call in the order of its communicator. Held by the job; when it goes without having run, the group
// is told.
struct Communicator::Turn {
  std::shared_ptr<Communicator> owner;
  std::string what;
  uint64_t number;
  bool ran = false;

  Turn(std::shared_ptr<Communicator> owner, std::string what, uint64_t number)
      : owner(std::move(owner)), what(std::move(what)), number(number) {}
  Turn(const Turn&) = delete;
  void await() {
    std::unique_lock lock(owner->mutex_);
    owner->turned_.wait(lock, [&] { return owner->turn_ == number; });
    ran = true;
  }
  ~Turn() {
    if (!ran) {
      owner->skipped(what);
      await();
    }
    {
      std::lock_guard lock(owner->mutex_);
      ++owner->turn_;
    }
    owner->turned_.notify_all();
  }
};

std::function<void()> Communicator::in_turn(std::string what, std::function<void()> job) {
  auto turn = std::make_shared<Turn>(shared_from_this(), std::move(what), next_number_++);
  return [turn, job = std::move(job)]() mutable {
    turn->await();
    // Released when the job is over, also when it throws: the next call may run.
    auto ending = std::move(turn);
    job();
  };
}

std::function<void()> Communicator::prepare(Collective op) {
  check(op, rank_, size_);
  count(op);
  std::string what = primitive_name(op.primitive) + (op.tag.empty() ? "" : " \"" + op.tag + "\"");
  return in_turn(std::move(what), [this, op = std::move(op)] { run(op); });
}

std::function<void()> HostCommunicator::prepare_connect() {
  return in_turn("hello", [this] { connect(); });
}

std::function<void()> HostCommunicator::prepare_split(int color, int key, std::shared_ptr<HostCommunicator>* part) {
  return in_turn("split", [this, color, key, part] { *part = split(color, key); });
}

std::function<void()> Communicator::prepare_leave() {
  return in_turn("destroy", [this] { retire(); });
}

void NullCommunicator::run(const Collective& op) {
  throw Error("DEVICE", primitive_name(op.primitive), "tensors of the null device, which the null group only counts",
              "tensors that hold data", "use ProcessGroup.fromEnvironment() or ProcessGroup.single()");
}

std::shared_ptr<HostCommunicator> NullCommunicator::split(int, int) {
  throw Error("UNSUPPORTED", "split", "a group that knows its other ranks", "a null group, which counts for one rank",
              "make the parts with ProcessGroup.null(size, rank)");
}

}  // namespace ds
