// Two kernels: rows of x are normalised and put in the order in which the product reads them, then the product with
// what follows. A third adds up the parts of the depth where groups are too few to fill a device.
#include "packed_linear.h"

#include <algorithm>

#include "packed_prepare.cuh"
#include "packed_tensor.cuh"
#include "packed_vector.cuh"

namespace ds::cuda {
namespace {

// Blocks that fill an A100 or an H100. Not the device's own number: the order of the sums would depend on it.
constexpr int64_t kFullDevice = 128, kLeastPartBlocks = 16;

// How an op makes its product: decided by shapes and dtypes alone.
struct Cut {
  bool tensor;
  int64_t R, groups, blocks;
  int rows;        // of x in a block of threads
  int64_t across;  // blocks of threads along the groups
  int parts;       // of the depth
  size_t x_bytes;  // of the prepared rows
  size_t scale_count, partial_count;

  Cut(const Tensor& x, const PackedWeight& weight)
      : R(x.numel() / weight.columns), groups(weight.groups()), blocks(weight.blocks()) {
    PackedFormat format = weight.format();
    bool integers = is_quantised(format);
    tensor = integers || (format == PackedFormat::bf16 && x.dtype == DType::bf16) ||
             (format == PackedFormat::f16 && x.dtype == DType::f16);
    int64_t padded = (R + kTileRows - 1) / kTileRows * kTileRows, width = blocks * kBlockColumns;
    if (tensor) {
      rows = R <= 8 ? 8 : R <= 16 ? 16 : R <= 32 ? 32 : 64;
      int64_t pairs = (groups + 1) / 2;
      across = rows == 64 ? (pairs + 3) / 4 : pairs;
    } else {
      rows = R == 1 ? 1 : R <= 4 ? 4 : 8;
      across = groups;
    }
    x_bytes = size_t(tensor ? padded : R) * size_t(width) * (tensor ? (integers ? 1 : 2) : 4);
    scale_count = integers ? size_t(padded * blocks) : 0;
    int64_t blocks_of_threads = std::max<int64_t>(across * down(), 1);
    int64_t most = std::max<int64_t>(blocks / kLeastPartBlocks, 1);
    parts = int(std::clamp<int64_t>(kFullDevice / blocks_of_threads, 1, most));
    partial_count = parts > 1 ? size_t(parts * R * groups * 16) : 0;
  }
  int64_t down() const { return (R + rows - 1) / rows; }
  dim3 grid() const { return {unsigned(across), unsigned(down()), unsigned(parts)}; }
  size_t bytes() const { return x_bytes + (scale_count + partial_count) * sizeof(float); }
};

constexpr int kFinishThreads = 256;

// Adds up the parts in order.
__global__ void __launch_bounds__(kFinishThreads) finish_parts(PackedPartial partial, int parts, PackedFinish finish) {
  int64_t items = partial.R * partial.groups, l = threadIdx.x % 16;
  // Whole warps stride together, so that all lanes reach the finish.
  for (int64_t first = int64_t(blockIdx.x) * (kFinishThreads / 16); first < items;
       first += int64_t(gridDim.x) * (kFinishThreads / 16)) {
    int64_t item = first + threadIdx.x / 16, r = item / partial.groups, group = item % partial.groups;
    float sum = 0;
    if (item < items)
      for (int part = 0; part < parts; ++part) sum += *partial.at(part, r, group, int(l));
    finish(item < items, r, group, int(l), sum);
  }
}

class Product {
 public:
  // `scratch`: cut.bytes(), aligned to 16.
  Product(const Cut& cut, const PackedWeight& weight, char* scratch, CudaContext& context)
      : cut_(cut),
        weight_(weight),
        context_(context),
        x_(scratch),
        scales_(reinterpret_cast<float*>(scratch + cut.x_bytes)),
        partial_{cut.parts > 1 ? scales_ + cut.scale_count : nullptr, cut.R, cut.groups} {}

  void prepare(const Tensor& x, const RowNorm& norm) const {
    DeviceNorm device{norm.weight.as<const float>(), norm.bias.as<const float>(), float(norm.eps), norm.kind()};
    dispatch_float(x.dtype, [&]<class T>() {
      auto launch = [&]<class Place>(Place place) {
        DS_LAUNCH((prepare_rows<T, Place>), unsigned(cut_.R), kPrepareThreads, 0, context_, x.as<const T>(),
                  weight_.columns, device, place);
      };
      if (!cut_.tensor) return launch(PlaceFloats{reinterpret_cast<float*>(x_), cut_.blocks});
      if (is_quantised(weight_.format()))
        return launch(PlaceIntegers{reinterpret_cast<int8_t*>(x_), scales_, cut_.blocks});
      if constexpr (!std::is_same_v<T, float>) launch(PlaceHalves<T>{reinterpret_cast<T*>(x_), cut_.blocks});
    });
  }

  void run(const PackedFinish& finish) const {
    dispatch_format(weight_.format(), [&]<PackedFormat kFormat>() {
      if constexpr (kFormat != PackedFormat::f32)
        if (cut_.tensor) run_tensor<kFormat>(finish);
      if constexpr (!is_quantised(kFormat))
        if (!cut_.tensor) run_vector<kFormat>(finish);
    });
    if (!partial_.sums) return;
    DS_LAUNCH(finish_parts, strided_blocks(cut_.R * cut_.groups, kFinishThreads / 16, context_), kFinishThreads, 0,
              context_, partial_, cut_.parts, finish);
  }

 private:
  template <PackedFormat kFormat>
  void run_tensor(const PackedFinish& finish) const {
    TensorOperands in{weight_.bytes.as<const uint8_t>(),
                      reinterpret_cast<const uint32_t*>(x_),
                      scales_,
                      cut_.groups,
                      cut_.blocks,
                      cut_.R};
    auto launch = [&]<int kTiles, int kAlong>() {
      DS_LAUNCH((tensor_product<kFormat, kTiles, kAlong>), cut_.grid(), kTensorWarps * kWarp, 0, context_, in, partial_,
                finish);
    };
    if (cut_.rows == 8) return launch.template operator()<1, 8>();
    if (cut_.rows == 16) return launch.template operator()<2, 8>();
    if (cut_.rows == 32) return launch.template operator()<4, 8>();
    launch.template operator()<8, 2>();
  }

  template <PackedFormat kFormat>
  void run_vector(const PackedFinish& finish) const {
    VectorOperands in{weight_.bytes.as<const uint8_t>(), reinterpret_cast<const float*>(x_), cut_.groups, cut_.blocks,
                      cut_.R};
    auto launch = [&]<int kRows>() {
      DS_LAUNCH((vector_product<kFormat, kRows>), cut_.grid(), kVectorWarps * kWarp, 0, context_, in, partial_, finish);
    };
    if (cut_.rows == 1) return launch.template operator()<1>();
    if (cut_.rows == 4) return launch.template operator()<4>();
    launch.template operator()<8>();
  }

  const Cut& cut_;
  const PackedWeight& weight_;
  CudaContext& context_;
  char* x_;
  float* scales_;
  PackedPartial partial_;
};

constexpr int kLeadThreads = 512;

// A block a row: the largest rank of its groups.
__global__ void __launch_bounds__(kLeadThreads) lead_rows(int32_t* out, const uint64_t* ranks, int64_t groups) {
  uint64_t best = Largest::kNeutral;
#pragma unroll 4
  for (int64_t group = threadIdx.x; group < groups; group += kLeadThreads)
    best = Largest()(best, ranks[blockIdx.x * groups + group]);
  best = block_reduce<Largest>(best, int(threadIdx.x), kLeadThreads);
  if (threadIdx.x == 0) out[blockIdx.x] = column_of(best);
}

}  // namespace

void packed_linear(const PackedLinear& op, CudaContext& context) {
  if (op.y.numel() == 0) return;
  Cut cut(op.x, op.weight);
  Product product(cut, op.weight, context.scratch<char>(int64_t(cut.bytes())), context);
  product.prepare(op.x, op.norm);
  product.run({op.y.data, op.residual.data, op.y.dtype, op.bias.as<const float>(), op.weight.outputs(), op.activation(),
               op.weight.gated, nullptr, cut.groups});
}

void packed_argmax(const PackedArgmax& op, CudaContext& context) {
  if (op.out.numel() == 0) return;
  Cut cut(op.x, op.weight);
  size_t ranks_at = (cut.bytes() + 15) / 16 * 16;
  char* scratch = context.scratch<char>(int64_t(ranks_at + size_t(cut.R * cut.groups) * sizeof(uint64_t)));
  auto* ranks = reinterpret_cast<uint64_t*>(scratch + ranks_at);
  Product product(cut, op.weight, scratch, context);
  product.prepare(op.x, op.norm);
  product.run({nullptr, nullptr, DType::f32, nullptr, op.weight.rows, Activation::none, false, ranks, cut.groups});
  DS_LAUNCH(lead_rows, unsigned(cut.R), kLeadThreads, 0, context, op.out.as<int32_t>(), ranks, cut.groups);
}

DS_CUDA_KERNEL(PackedLinear, packed_linear)
DS_CUDA_KERNEL(PackedArgmax, packed_argmax)

}  // namespace ds::cuda
