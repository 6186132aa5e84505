// What travels through NCCL for each primitive, and what is added up.
#include <algorithm>

#include "../kernels/reduce/sum_ranks.h"
#include "nccl.h"

namespace ds {
namespace {

// Received before it is summed. Large tensors go in pieces of this, so that the memory stays small beside theirs.
constexpr int64_t kScratchBytes = 64 << 20;
// An all_reduce of at most this goes whole to everybody: one step instead of two.
constexpr int64_t kWholeBytes = 64 << 10;
// Pieces begin at multiples of these elements, and so at 16 bytes where the tensor does.
constexpr int64_t kAlign = 64;

int64_t down(int64_t n) { return n / kAlign * kAlign; }
int64_t up(int64_t n) { return down(n + kAlign - 1); }

NcclType nccl_type(DType type) {
  switch (type) {
    case DType::f32:
      return kNcclFloat32;
    case DType::bf16:
      return kNcclBfloat16;
    case DType::f16:
      return kNcclFloat16;
    default:
      return kNcclFloat64;
  }
}

void* handle_of(const CudaStream& stream) { return stream.library().stream_handle(stream.handle()); }

size_t bytes_of(const Tensor& t) { return size_t(t.numel()) * dtype_bytes(t.dtype); }

}  // namespace

void NcclCommunicator::move(const Collective& op) {
  CudaStream& stream = *op.cuda;
  void* handle = handle_of(stream);
  bool exact = options_.sums == NcclSums::exact || !has_nccl();
  if (std::max(op.in.present ? op.in.numel() : 0, op.out.present ? op.out.numel() : 0) == 0) return;
  switch (op.primitive) {
    case Primitive::all_reduce:
      return exact ? exact_all_reduce(op) : unordered_all_reduce(op);
    case Primitive::reduce_scatter:
      return exact ? exact_reduce_scatter(op) : unordered_reduce_scatter(op);
    case Primitive::all_gather:
      return all_gather(stream, op.in.data, op.out.data, bytes_of(op.in));
    case Primitive::all_to_all:
      return all_to_all(op);
    case Primitive::broadcast:
      if (!has_nccl()) return;
      return nccl([&](auto& f, NcclComm* comm) {
        return f.Broadcast(op.out.data, op.out.data, bytes_of(op.out), kNcclUint8, op.peer, comm, handle);
      });
    case Primitive::send:
      return nccl([&](auto& f, NcclComm* comm) {
        return f.Send(op.in.data, bytes_of(op.in), kNcclUint8, op.peer, comm, handle);
      });
    case Primitive::recv:
      return nccl([&](auto& f, NcclComm* comm) {
        return f.Recv(op.out.data, bytes_of(op.out), kNcclUint8, op.peer, comm, handle);
      });
    default:
      throw Error("UNSUPPORTED", primitive_name(op.primitive), "a call that moves tensors of a GPU", "another one",
                  "barriers and notes go through the host");
  }
}

void NcclCommunicator::exchange(CudaStream& stream, std::initializer_list<Exchange> parts) {
  if (size_ == 1) return;
  void* handle = handle_of(stream);
  nccl([&](const NcclFunctions& f, NcclComm* comm) {
    NcclResult first = f.GroupStart();
    auto keep = [&](NcclResult result) {
      if (first == kNcclSuccess && result != kNcclInProgress) first = result;
    };
    for (const Exchange& part : parts)
      for (int q = 0; q < size_ && part.bytes; ++q) {
        if (q == rank_) continue;
        keep(f.Send(part.from + size_t(q) * part.from_stride, part.bytes, kNcclUint8, q, comm, handle));
        keep(f.Recv(part.to + size_t(q) * part.to_stride, part.bytes, kNcclUint8, q, comm, handle));
      }
    NcclResult end = f.GroupEnd();  // also after an error: a group that was begun must end
    return first == kNcclSuccess ? end : first;
  });
}

void NcclCommunicator::sum(const Collective& op, const std::vector<const void*>& sources, void* out, int64_t n,
                           bool accumulate) {
  SumRanks add{sources.data(), int(sources.size()), op.in.dtype, out, op.out.dtype, n, op.scale, accumulate, false};
  op.cuda->launch(cuda_kernel<SumRanks>(), &add);
}

// In blocks: rank q gets slice q of everybody, adds it up and gives the sum to all. What does not divide into slices,
// or is too small for two steps, goes whole to everybody, who all add it up.
void NcclCommunicator::exact_all_reduce(const Collective& op) {
  const int64_t N = size_, n = op.in.numel();
  const size_t in_size = dtype_bytes(op.in.dtype), out_size = dtype_bytes(op.out.dtype);
  const int64_t block = std::max(down(kScratchBytes / int64_t(in_size) / N), kAlign) * N;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t length = std::min(block, n - begin);
    const int64_t slice = length * int64_t(in_size) <= kWholeBytes || N == 1 ? 0 : down(length / N);
    const int64_t rest = length - slice * N, rest_place = up(rest);
    const char* in = op.in.as<char>() + size_t(begin) * in_size;
    char* out = op.out.as<char>() + size_t(begin) * out_size;
    char* slices = N == 1 ? nullptr : op.cuda->workspace(size_t(N * (slice + rest_place)) * in_size);
    char* rests = slices + size_t(N * slice) * in_size;
    const char* in_rest = in + size_t(N * slice) * in_size;
    exchange(*op.cuda, {{in, size_t(slice) * in_size, size_t(slice) * in_size, slices, size_t(slice) * in_size},
                        {in_rest, 0, size_t(rest) * in_size, rests, size_t(rest_place) * in_size}});
    std::vector<const void*> of_slice, of_rest;
    for (int q = 0; q < size_; ++q) {
      bool own = q == rank_;
      of_slice.push_back((own ? in : slices) + size_t(q * slice) * in_size);
      of_rest.push_back(own ? in_rest : rests + size_t(q * rest_place) * in_size);
    }
    if (slice) sum(op, of_slice, out + size_t(rank_ * slice) * out_size, slice, false);
    if (rest) sum(op, of_rest, out + size_t(N * slice) * out_size, rest, false);
    if (slice) all_gather(*op.cuda, out + size_t(rank_ * slice) * out_size, out, size_t(slice) * out_size);
  }
}

void NcclCommunicator::exact_reduce_scatter(const Collective& op) {
  const int64_t N = size_, n = op.out.numel();
  const size_t in_size = dtype_bytes(op.in.dtype), out_size = dtype_bytes(op.out.dtype);
  const int64_t piece = std::max(down(kScratchBytes / int64_t(in_size) / N), kAlign);
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t length = std::min(piece, n - begin), place = up(length);
    const char* in = op.in.as<char>() + size_t(begin) * in_size;
    char* pieces = N == 1 ? nullptr : op.cuda->workspace(size_t(N * place) * in_size);
    exchange(*op.cuda, {{in, size_t(n) * in_size, size_t(length) * in_size, pieces, size_t(place) * in_size}});
    std::vector<const void*> sources;
    for (int q = 0; q < size_; ++q)
      sources.push_back(q == rank_ ? in + size_t(q * n) * in_size : pieces + size_t(q * place) * in_size);
    sum(op, sources, op.out.as<char>() + size_t(begin) * out_size, length, op.accumulate);
  }
}

void NcclCommunicator::unordered_all_reduce(const Collective& op) {
  void* handle = handle_of(*op.cuda);
  const int64_t n = op.in.numel();
  const size_t in_size = dtype_bytes(op.in.dtype), out_size = dtype_bytes(op.out.dtype);
  auto reduce = [&](const char* from, char* to, int64_t count) {
    nccl([&](auto& f, NcclComm* comm) {
      return f.AllReduce(from, to, size_t(count), nccl_type(op.in.dtype), kNcclSum, comm, handle);
    });
  };
  if (op.out.dtype == op.in.dtype) {
    reduce(op.in.as<char>(), op.out.as<char>(), n);
    if (op.scale != 1) sum(op, {op.out.data}, op.out.data, n, false);
    return;
  }
  const int64_t block = kScratchBytes / int64_t(in_size);
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t length = std::min(block, n - begin);
    char* sums = op.cuda->workspace(size_t(length) * in_size);
    reduce(op.in.as<char>() + size_t(begin) * in_size, sums, length);
    sum(op, {sums}, op.out.as<char>() + size_t(begin) * out_size, length, false);
  }
}

// A sum that is widened or added to needs scratch memory of the shard's size: NCCL wants all slices in one call.
void NcclCommunicator::unordered_reduce_scatter(const Collective& op) {
  const int64_t n = op.out.numel();
  const bool direct = op.out.dtype == op.in.dtype && !op.accumulate;
  char* sums = direct ? op.out.as<char>() : op.cuda->workspace(size_t(n) * dtype_bytes(op.in.dtype));
  nccl([&](auto& f, NcclComm* comm) {
    return f.ReduceScatter(op.in.data, sums, size_t(n), nccl_type(op.in.dtype), kNcclSum, comm, handle_of(*op.cuda));
  });
  if (!direct || op.scale != 1) sum(op, {sums}, op.out.data, n, op.accumulate);
}

void NcclCommunicator::all_gather(CudaStream& stream, const void* in, void* out, size_t bytes) {
  if (has_nccl())
    return nccl(
        [&](auto& f, NcclComm* comm) { return f.AllGather(in, out, bytes, kNcclUint8, comm, handle_of(stream)); });
  if (in != out) stream.copy(out, in, bytes);
}

void NcclCommunicator::all_to_all(const Collective& op) {
  size_t piece = bytes_of(op.in) / size_t(size_);
  exchange(*op.cuda, {{op.in.as<char>(), piece, piece, op.out.as<char>(), piece}});
  op.cuda->copy(op.out.as<char>() + size_t(rank_) * piece, op.in.as<char>() + size_t(rank_) * piece, piece);
}

}  // namespace ds
