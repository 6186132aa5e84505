// A block of threads makes a tile of up to 64 tokens, a strip's, by 64 of what it meets. sdd: the columns are the
// tokens of blocks that follow each other in the strip's list, 64 / block of them. dsd: the columns are features, the
// depth the tokens of the strip's blocks. dds is dsd with s and the result turned: y^T = op(s)^T op(a)^T.
//
// Bound by memory for s in sdd, which is written once, and by shared memory and L2 in dsd and dds, where every block
// fetches as many rows as it has tokens: 2 block FLOP a byte fetched, so small blocks cannot fill the tensor cores.
#include "block_matmul.h"

#include "block_lists.cuh"
#include "block_tile.cuh"

namespace ds::cuda {
namespace {

// A dense operand or result of every head: [T, K] where `by_tokens`, else [K, T].
template <class T>
struct Dense {
  T* data;
  int tokens, features;
  bool by_tokens, aligned;  // whether rows start at 16 bytes

  Dense(const Tensor& t, bool by_tokens)
      : data(t.as<T>()),
        tokens(int(t.dim(by_tokens ? 2 : 3))),
        features(int(t.dim(by_tokens ? 3 : 2))),
        by_tokens(by_tokens),
        aligned(aligned_16(t.data) && (!by_tokens || features % kPack<T> == 0)) {}

  __device__ T* at(int64_t bh, int token, int feature) const {
    return data + (by_tokens ? (bh * tokens + token) * features + feature : (bh * features + feature) * tokens + token);
  }
  // What stands at a token and a feature and behind, for a panel; `there`: whether the token exists.
  __device__ Source<std::remove_const_t<T>> source(int64_t bh, int token, int feature, bool there = true) const {
    int left = features - feature;
    bool valid = there && left > 0;
    return {valid ? at(bh, token, feature) : data, valid ? by_tokens ? left : kPack<T> : 0};
  }
};

template <class T>
struct Problem {
  LayoutLists lists;
  T* s;
  int shift;  // block = 1 << shift
  bool s_aligned;
};

// Which strip of kRows tokens a block of threads has.
template <int kRows>
struct OwnTokens {
  int64_t bh;
  int row, offset;  // its row of blocks, and where it begins in the blocks

  __device__ explicit OwnTokens(const LayoutLists& lists) {
    int per_block = lists.block / kRows, strips = lists.side * per_block, strip = int(blockIdx.x % unsigned(strips));
    bh = blockIdx.x / unsigned(strips);
    row = strip / per_block, offset = strip % per_block * kRows;
  }
};

// Room for neighbouring elements of a result: for none, or those of a chunk that there are.
template <class T>
struct Target {
  T* data;
  int count;
};

template <class T>
__device__ __forceinline__ void write_pack(T* to, const float* sums, int count, bool aligned) {
  if (aligned) {
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) pack.at[k] = from_f32<T>(sums[k]);
    store(to, pack);
  } else {
    for (int k = 0; k < count && k < kPack<T>; ++k) to[k] = from_f32<T>(sums[k]);
  }
}

template <class T, int kRows, bool kATokens, bool kBTokens>
__global__ void __launch_bounds__(kTileThreads<kRows>, (kTileBlocks<T, kRows>))
    sdd(Problem<T> op, Dense<const T> a, Dense<const T> b) {
  using PanelA = BlockPanel<T, kATokens, kRows>;
  using PanelB = BlockPanel<T, kBTokens, kTileColumns>;
  using Memory = TileMemory<T, kRows>;
  constexpr int kThreads = kTileThreads<kRows>, kStride = Memory::kSumStride;
  DS_DYN_SHARED(unsigned char, bytes);
  if (lists_are_bad(op.lists)) return;
  Memory memory{bytes};
  OwnTokens<kRows> own(op.lists);
  Strip strip(op.lists, own.bh, own.row, false);
  int first = own.row * op.lists.block + own.offset, inside = op.lists.block - 1;
  TileSums<T, kRows, PanelA, PanelB> sums;
  int steps = (a.features + kPanelTokens - 1) / kPanelTokens;
  int64_t columns = int64_t(strip.end - strip.begin) << op.shift;  // the strip's blocks behind each other
  for (int64_t c = int64_t(blockIdx.y) * kTileColumns; c < columns; c += int64_t(gridDim.y) * kTileColumns) {
    auto place = [&](int column) { return strip.begin + int((c + column) >> op.shift); };
    auto fill = [&](int step) {
      int depth = step * kPanelTokens;
      fill_panel<PanelA, kThreads>(memory.panel_a(step), a.aligned,
                                   [&](int e, int k) { return a.source(own.bh, first + e, depth + k); });
      fill_panel<PanelB, kThreads>(memory.panel_b(step), b.aligned, [&](int e, int k) {
        int at = place(e);
        bool there = at < strip.end;
        int token = there ? strip.others[at] * op.lists.block + (int(c + e) & inside) : 0;
        return b.source(own.bh, token, depth + k, there);
      });
    };
    memory.run(steps, fill, [&](int step) { sums.add(memory.panel_a(step), memory.panel_b(step)); });
    float* tile = memory.sums();
    sums.take([&](int r, int column, float sum) { tile[r * kStride + column] = sum; });
    __syncthreads();
    constexpr int kPacks = kTileColumns / kPack<T>;
    for (int i = int(threadIdx.x); i < kRows * kPacks; i += kThreads) {
      int r = i / kPacks, column = i % kPacks * kPack<T>, at = place(column);
      if (at >= strip.end) continue;
      int64_t row = strip.block(at) * op.lists.block + own.offset + r;
      write_pack(op.s + row * op.lists.block + (int(c + column) & inside), tile + r * kStride + column, kPack<T>,
                 op.s_aligned);
    }
    __syncthreads();  // the tile becomes the ring again
  }
}

// y = S d, S = op(s) or, for dds, op(s)^T. by_columns: S's rows are the columns of the layout, and blocks are turned.
template <class T, int kRows, bool kTurned, bool kBTokens>
__global__ void __launch_bounds__(kTileThreads<kRows>, (kTileBlocks<T, kRows>))
    dsd(Problem<T> op, Dense<T> y, Dense<const T> d) {
  using PanelA = BlockPanel<T, !kTurned, kRows>;
  using PanelB = BlockPanel<T, !kBTokens, kTileColumns>;
  using Memory = TileMemory<T, kRows>;
  constexpr int kThreads = kTileThreads<kRows>;
  DS_DYN_SHARED(unsigned char, bytes);
  if (lists_are_bad(op.lists)) return;
  Memory memory{bytes};
  OwnTokens<kRows> own(op.lists);
  Strip strip(op.lists, own.bh, own.row, kTurned);
  int block = op.lists.block, inside = block - 1, feature = int(blockIdx.y) * kTileColumns;
  TileSums<T, kRows, PanelA, PanelB> sums;
  // Panels of the strip's blocks behind each other.
  int steps = int((((int64_t(strip.end - strip.begin)) << op.shift) + kPanelTokens - 1) / kPanelTokens);
  auto fill = [&](int step) {
    // A chunk never leaves its block.
    auto place = [&](int k) { return strip.begin + int((int64_t(step) * kPanelTokens + k) >> op.shift); };
    auto token = [&](int k) { return int(int64_t(step) * kPanelTokens + k) & inside; };
    fill_panel<PanelA, kThreads>(memory.panel_a(step), op.s_aligned, [&](int e, int k) {
      int at = place(k), i = own.offset + e, j = token(k);
      bool there = at < strip.end;
      const T* start = op.s + (there ? strip.block(at) << 2 * op.shift : 0);
      return Source<T>{start + (kTurned ? j * block + i : i * block + j), there ? kPack<T> : 0};
    });
    fill_panel<PanelB, kThreads>(memory.panel_b(step), d.aligned, [&](int e, int k) {
      int at = place(k);
      bool there = at < strip.end;
      return d.source(own.bh, there ? strip.others[at] * block + token(k) : 0, feature + e, there);
    });
  };
  memory.run(steps, fill, [&](int step) { sums.add(memory.panel_a(step), memory.panel_b(step)); });

  float* tile = memory.sums();
  int first = own.row * block + own.offset;
  // Rows of the tile as the result has them, whose neighbouring elements lie in neighbouring lanes.
  auto write = [&](int rows, int columns, int stride, auto&& target) {
    int packs = columns / kPack<T>;
    for (int i = int(threadIdx.x); i < rows * packs; i += kThreads) {
      int r = i / packs, c = i % packs * kPack<T>;
      Target<T> to = target(r, c);
      if (to.count > 0) write_pack(to.data, tile + r * stride + c, to.count, y.aligned);
    }
  };
  if (y.by_tokens) {
    constexpr int kStride = Memory::kSumStride;
    sums.take([&](int r, int c, float sum) { tile[r * kStride + c] = sum; });
    __syncthreads();
    write(kRows, kTileColumns, kStride, [&](int r, int c) {
      return Target<T>{y.at(own.bh, first + r, feature + c), y.features - feature - c};
    });
  } else {
    constexpr int kStride = Memory::kTurnedStride;
    sums.take([&](int r, int c, float sum) { tile[c * kStride + r] = sum; });
    __syncthreads();
    write(kTileColumns, kRows, kStride, [&](int c, int r) {
      return Target<T>{y.at(own.bh, first + r, feature + c), feature + c < y.features ? kPack<T> : 0};
    });
  }
}

// Calls fn<kRows>() with the tokens of a tile's strip.
template <class F>
void dispatch_rows_of(int64_t block, F&& fn) {
  if (block == 16) return fn.template operator()<16>();
  if (block == 32) return fn.template operator()<32>();
  fn.template operator()<64>();
}

template <class F>
void dispatch_flag(bool flag, F&& fn) {
  flag ? fn.template operator()<true>() : fn.template operator()<false>();
}

template <class Op, class T>
Problem<T> problem_of(const Op& op, CudaContext& context) {
  int shift = 0;
  while (1 << shift < op.layout.block) ++shift;
  return {checked_lists<Op>(op.layout, op.s.dim(1), context), op.s.template as<T>(), shift, aligned_16(op.s.data)};
}

// The strips of all heads.
unsigned strips_of(const Tensor& s, const BlockLayout& layout, int rows) {
  int64_t heads = s.dim(0) * layout.head_layout.numel();
  return unsigned(heads * layout.side() * (layout.block / rows));
}

// dsd, and dds as dsd: `by_columns` of the layout.
template <class Op>
void multiply_sparse(const Op& op, const Tensor& dense, bool dense_by_tokens, bool y_by_tokens, bool by_columns,
                     CudaContext& context) {
  dispatch_float(op.y.dtype, [&]<class T>() {
    auto problem = problem_of<Op, T>(op, context);
    Dense<T> y(op.y, y_by_tokens);
    Dense<const T> d(dense, dense_by_tokens);
    dispatch_rows_of(op.layout.block, [&]<int kRows>() {
      dim3 grid(strips_of(op.s, op.layout, kRows), unsigned((y.features + kTileColumns - 1) / kTileColumns));
      if (grid.x == 0 || grid.y == 0) return;
      dispatch_flag(by_columns, [&]<bool kTurned>() {
        dispatch_flag(dense_by_tokens, [&]<bool kTokens>() {
          DS_LAUNCH((dsd<T, kRows, kTurned, kTokens>), grid, kTileThreads<kRows>, (TileMemory<T, kRows>::kBytes),
                    context, problem, y, d);
        });
      });
    });
  });
}

}  // namespace

void block_sdd(const BlockSdd& op, CudaContext& context) {
  dispatch_float(op.s.dtype, [&]<class T>() {
    auto problem = problem_of<BlockSdd, T>(op, context);
    Dense<const T> a(op.a, !op.transpose_a), b(op.b, op.transpose_b);
    dispatch_rows_of(op.layout.block, [&]<int kRows>() {
      // As many tiles of a strip beside each other as a strip has on average.
      int64_t strips = op.layout.head_layout.numel() * op.layout.side();
      if (op.s.numel() == 0 || strips == 0) return;
      int64_t tiles = op.s.dim(1) * op.layout.block / (strips * kTileColumns) + 1;
      dim3 grid(strips_of(op.s, op.layout, kRows), unsigned(std::min<int64_t>(tiles, 64)));
      dispatch_flag(!op.transpose_a, [&]<bool kATokens>() {
        dispatch_flag(op.transpose_b, [&]<bool kBTokens>() {
          DS_LAUNCH((sdd<T, kRows, kATokens, kBTokens>), grid, kTileThreads<kRows>, (TileMemory<T, kRows>::kBytes),
                    context, problem, a, b);
        });
      });
    });
  });
}

void block_dsd(const BlockDsd& op, CudaContext& context) {
  multiply_sparse(op, op.b, !op.transpose_b, true, op.transpose_s, context);
}

void block_dds(const BlockDds& op, CudaContext& context) {
  multiply_sparse(op, op.a, op.transpose_a, false, !op.transpose_s, context);
}

DS_CUDA_KERNEL(BlockSdd, block_sdd)
DS_CUDA_KERNEL(BlockDsd, block_dsd)
DS_CUDA_KERNEL(BlockDds, block_dds)

}  // namespace ds::cuda
