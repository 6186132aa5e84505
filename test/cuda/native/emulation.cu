// The emulated kernel language: what it computes, in which order threads run, and what it refuses. Small kernels, right
// and wrong ones.
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"
#include "fixture.h"

namespace ds::cuda {
namespace {

void expect_refusal(const std::string& what, const std::string& text, const std::function<void(CudaContext&)>& body) {
  Fixture f;
  std::string said;
  try {
    CudaContext context = f.op();
    body(context);
    said = f.join();
  } catch (const Error& e) {
    said = e.actual;
  }
  expect(said.find(text) != std::string::npos, what, said.empty() ? "no error" : said);
}

// --- barriers and warps

template <bool kBarrier>
__global__ void reverse(int* out) {
  DS_SHARED(int[64], values);
  values[threadIdx.x] = int(threadIdx.x);
  if constexpr (kBarrier) __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

__global__ void some_wait(int) {
  if (threadIdx.x < 40) __syncthreads();
}

__global__ void wait_apart(int) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void lane_missing(float* out) {
  if (threadIdx.x % 32 != 3) out[threadIdx.x] = __shfl_xor_sync(kAllLanes, 1.0f, 1);
}

__global__ void lane_outside(float* out) { out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, 1.0f, 1); }

__global__ void partial_shuffles(int* out) {
  int lane = int(threadIdx.x), value = lane;
  // The lower half trades alone and more often than the upper.
  for (int i = 0; i < 5; ++i) value += __shfl_xor_sync(kAllLanes, value, 16);
  if (lane < 16)
    for (int i = 0; i < 3; ++i) value += __shfl_down_sync(0x0000ffffu, value, 1, 16);
  out[lane] = __shfl_sync(kAllLanes, value, 5);
}

__global__ void votes(unsigned* out) {
  unsigned odd = __ballot_sync(kAllLanes, threadIdx.x & 1);
  bool ok = __any_sync(kAllLanes, threadIdx.x == 7) && !__all_sync(kAllLanes, threadIdx.x == 7);
  out[threadIdx.x] =
      ok && __all_sync(kAllLanes, 1) &&
              __shfl_up_sync(kAllLanes, int(threadIdx.x), 2) == int(threadIdx.x) - (threadIdx.x < 2 ? 0 : 2)
          ? odd
          : 0;
}

__global__ void reductions(float* out, const float* x) {
  int rank = int(threadIdx.x);
  float pair[2] = {x[rank], -x[rank]};
  block_reduce<Sum>(pair, rank, 96);
  float largest = block_reduce<Max>(x[rank], rank, 96);
  out[rank] = pair[0] == -pair[1] ? pair[0] : NAN;
  out[96 + rank] = largest;
}

__global__ void read_unwritten(float* out) {
  DS_SHARED(float[32], fixed);
  DS_DYN_SHARED(float, dynamic);
  out[blockIdx.x * 64 + threadIdx.x] = fixed[threadIdx.x];
  out[blockIdx.x * 64 + 32 + threadIdx.x] = dynamic[threadIdx.x];
  fixed[threadIdx.x] = dynamic[threadIdx.x] = 1;  // must be gone in the next block
}

__global__ void too_much_shared(float* out) {
  DS_SHARED(float[12 * 1024 + 1], large);
  large[0] = 1;
  out[0] = large[0];
}

__global__ void index_of(unsigned* out) {
  unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread]++;
}

void barriers() {
  std::vector<int> out(64);
  for (uint64_t order : {0, 1, 2, 9}) {
    Fixture f(order);
    auto context = f.op();
    DS_LAUNCH(reverse<true>, 1, 64, 0, context, out.data());
    expect(f.join().empty(), "a barrier");
    bool right = true;
    for (int i = 0; i < 64; ++i) right = right && out[size_t(i)] == 63 - i;
    expect(right, "values behind a barrier, order " + std::to_string(order));
#if !defined(__SANITIZE_THREAD__)  // which rightly ends the program with the report of a race
    DS_LAUNCH(reverse<false>, 1, 64, 0, context, out.data());
    f.join();
    bool seen = false;
    for (int i = 0; i < 64; ++i) seen = seen || out[size_t(i)] != 63 - i;
    expect(seen, "a missing barrier is seen, order " + std::to_string(order));
#endif
  }
  expect_refusal("threads that left before a barrier", "40 threads at __syncthreads at emulation.cu:",
                 [](CudaContext& c) { DS_LAUNCH(some_wait, dim3(3, 2), 64, 0, c, 0); });
  expect_refusal("different barriers", "different barriers",
                 [](CudaContext& c) { DS_LAUNCH(wait_apart, 1, 64, 0, c, 0); });
  std::vector<float> floats(256);
  expect_refusal("a lane that does not join", "31 threads at __shfl_xor_sync",
                 [&](CudaContext& c) { DS_LAUNCH(lane_missing, 1, 32, 0, c, floats.data()); });
  expect_refusal("a lane outside its mask", "its own mask",
                 [&](CudaContext& c) { DS_LAUNCH(lane_outside, 1, 32, 0, c, floats.data()); });
  expect_refusal("half a warp", "cudaErrorInvalidConfiguration",
                 [&](CudaContext& c) { DS_LAUNCH(some_wait, 1, 48, 0, c, 0); });
  expect_refusal("too many threads", "cudaErrorInvalidConfiguration",
                 [&](CudaContext& c) { DS_LAUNCH(some_wait, 1, 1056, 0, c, 0); });
  expect_refusal("an empty grid", "cudaErrorInvalidConfiguration",
                 [&](CudaContext& c) { DS_LAUNCH(some_wait, dim3(0), 32, 0, c, 0); });
  expect_refusal("too much static shared memory", "48 KiB",
                 [&](CudaContext& c) { DS_LAUNCH(too_much_shared, 1, 32, 0, c, floats.data()); });
  expect_refusal("too much dynamic shared memory", "cudaErrorInvalidValue",
                 [&](CudaContext& c) { DS_LAUNCH(read_unwritten, 1, 32, size_t(228) << 10, c, floats.data()); });
}

void warps() {
  for (uint64_t order : {0, 1, 4}) {
    Fixture f(order);
    auto context = f.op();
    std::vector<int> ints(32);
    DS_LAUNCH(partial_shuffles, 1, 32, 0, context, ints.data());
    expect(f.join().empty(), "shuffles of a part of a warp");
    std::vector<int> lanes(32);
    for (int i = 0; i < 32; ++i) lanes[size_t(i)] = i;
    for (int i = 0; i < 5; ++i) {
      auto before = lanes;
      for (size_t l = 0; l < 32; ++l) lanes[l] += before[l ^ 16];
    }
    for (int i = 0; i < 3; ++i) {
      auto before = lanes;
      for (size_t l = 0; l < 16; ++l) lanes[l] += before[l < 15 ? l + 1 : l];
    }
    for (int got : ints) expect(got == lanes[5], "their values, order " + std::to_string(order), std::to_string(got));

    std::vector<unsigned> words(32);
    DS_LAUNCH(votes, 1, 32, 0, context, words.data());
    f.join();
    for (unsigned w : words) expect(w == 0xaaaaaaaau, "votes");

    std::vector<float> x(96), out(192);
    double sum = 0;
    for (size_t i = 0; i < x.size(); ++i) sum += x[i] = float(i * 37 % 96) - 40;
    DS_LAUNCH(reductions, 1, 96, 0, context, out.data(), x.data());
    expect(f.join().empty(), "reductions");
    for (size_t i = 0; i < 96; ++i)
      expect(out[i] == float(sum) && out[96 + i] == 55, "a block's sum and maximum", std::to_string(out[i]));

    std::vector<float> seen(5 * 64);
    DS_LAUNCH(read_unwritten, 5, 32, 128, context, seen.data());
    f.join();
    for (float s : seen) expect(std::isnan(s), "unwritten shared memory is NaN", std::to_string(s));

    std::vector<unsigned> counts(size_t(3 * 2 * 2) * (4 * 8 * 2));
    DS_LAUNCH(index_of, dim3(3, 2, 2), dim3(4, 8, 2), 0, context, counts.data());
    f.join();
    bool once = true;
    for (unsigned count : counts) once = once && count == 1;
    expect(once, "every thread of every block runs once");
  }
}

// --- instructions

template <class T>
T random_element(std::mt19937& random) {
  std::normal_distribution<float> normal;
  if constexpr (std::is_same_v<T, float>)
    return normal(random);
  else if constexpr (std::is_same_v<T, bf16>)
    return to_bf16(normal(random));
  else
    return to_f16(normal(random));
}

// D = A B through copies into shared memory and ldmatrix, as a kernel would: A [16, 16] row major, B [16, 8] row major.
template <class T>
__global__ void product(const T* a, const T* b, float* d, bool* zeros) {
  DS_SHARED(T[16][16], a_rows);
  DS_SHARED(T[16][8], b_rows);
  DS_SHARED(T[8], nothing);
  unsigned lane = threadIdx.x;
  copy_async_16(&a_rows[lane / 2][lane % 2 * 8], a + lane * 8);
  copy_async_commit();
  if (lane < 16) copy_async_16(b_rows[lane], b + lane * 8);
  if (lane == 16) copy_async_16(nothing, nullptr, false);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  if (lane < 8) zeros[lane] = nothing[lane].bits == 0;
  uint32_t fa[4], fb[2], whole[4];
  // Matrices: rows 0-7 left, rows 8-15 left, rows 0-7 right, rows 8-15 right.
  load_matrices<false>(fa, &a_rows[lane % 16][lane / 16 * 8]);
  load_matrices<true>(fb, b_rows[lane % 16]);
  load_matrices<true>(whole, b_rows[lane % 16]);
  float c[4] = {1, 1, 1, 1};
  mma_16x8x16<T>(c, fa, fb);
  if (whole[0] != fb[0] || whole[1] != fb[1]) c[0] = NAN;
  unsigned g = lane / 4, t = lane % 4;
  d[g * 8 + 2 * t] = c[0];
  d[g * 8 + 2 * t + 1] = c[1];
  d[(g + 8) * 8 + 2 * t] = c[2];
  d[(g + 8) * 8 + 2 * t + 1] = c[3];
}

// Fragments straight from memory, as the layout's table says.
__global__ void product_tf32(const float* a, const float* b, float* d) {
  unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
  uint32_t fa[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]), to_tf32(a[g * 8 + t + 4]),
                    to_tf32(a[(g + 8) * 8 + t + 4])};
  uint32_t fb[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
  float c[4] = {};
  mma_16x8x8_tf32(c, fa, fb);
  d[g * 8 + 2 * t] = c[0];
  d[g * 8 + 2 * t + 1] = c[1];
  d[(g + 8) * 8 + 2 * t] = c[2];
  d[(g + 8) * 8 + 2 * t + 1] = c[3];
}

// Group 0 holds one copy, group 1 another; only group 0 is waited for.
__global__ void unawaited(const float* x, float* out) {
  DS_SHARED(float[2][4], values);
  if (threadIdx.x == 0) {
    copy_async_16(values[0], x);
    copy_async_commit();
    copy_async_16(values[1], x + 4);
    copy_async_commit();
    copy_async_wait<1>();
    out[0] = values[0][0];
    out[1] = values[1][0];
    copy_async_wait<0>();
    out[2] = values[1][0];
  }
}

template <class T>
void product_of(const char* name) {
  std::mt19937 random(3);
  std::vector<T> a(256), b(128);
  for (auto& x : a) x = random_element<T>(random);
  for (auto& x : b) x = random_element<T>(random);
  std::vector<float> d(128);
  bool zeros[8] = {};
  Fixture f(3);
  auto context = f.op();
  DS_LAUNCH(product<T>, 1, 32, 0, context, a.data(), b.data(), d.data(), zeros);
  std::string error = f.join();
  double worst = 0;
  for (size_t i = 0; i < 16; ++i)
    for (size_t j = 0; j < 8; ++j) {
      double sum = 1;
      for (size_t k = 0; k < 16; ++k) sum += double(to_float(a[i * 16 + k])) * to_float(b[k * 8 + j]);
      worst = std::max(worst, std::isnan(d[i * 8 + j]) ? 1.0 : std::abs(sum - d[i * 8 + j]));
    }
  expect(error.empty() && worst < 1e-5, std::string("a product of ") + name, error + std::to_string(worst));
  for (bool zero : zeros) expect(zero, "an invalid copy gives zeros");
}

void instructions() {
  product_of<bf16>("bf16");
  product_of<f16>("f16");
  Fixture f;
  auto context = f.op();
  std::mt19937 random(4);
  std::vector<float> a(128), b(64), d(128);
  for (auto& x : a) x = random_element<float>(random);
  for (auto& x : b) x = random_element<float>(random);
  DS_LAUNCH(product_tf32, 1, 32, 0, context, a.data(), b.data(), d.data());
  expect(f.join().empty(), "a product of tf32");
  double worst = 0, rounding = 0;
  for (size_t i = 0; i < 16; ++i)
    for (size_t j = 0; j < 8; ++j) {
      double sum = 0;
      for (size_t k = 0; k < 8; ++k) sum += double(a[i * 8 + k]) * b[k * 8 + j];
      worst = std::max(worst, std::abs(sum - d[i * 8 + j]));
      rounding = std::max(rounding, std::abs(sum));
    }
  expect(worst < 8e-3 && worst > 1e-6, "with the precision of tf32", std::to_string(worst));
  expect(to_tf32(1 + 0x1p-11f) == float_bits(1 + 0x1p-10f) && to_tf32(1 + 0x1p-12f) == float_bits(1.0f) &&
             to_tf32(INFINITY) == float_bits(INFINITY) && std::isnan(bits_float(to_tf32(NAN))),
         "tf32 rounds to nearest, ties away from zero");
  float x[8] = {1, 1, 1, 1, 2, 2, 2, 2}, out[3] = {};
  DS_LAUNCH(unawaited, 1, 32, 0, context, x, out);
  expect(f.join().empty(), "copies in groups");
  expect(out[0] == 1 && std::isnan(out[1]) && out[2] == 2, "a copy arrives when it is waited for");
}

}  // namespace
}  // namespace ds::cuda

int main() {
  using namespace ds::cuda;
  barriers();
  warps();
  instructions();
  test_streams_and_memory();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}
