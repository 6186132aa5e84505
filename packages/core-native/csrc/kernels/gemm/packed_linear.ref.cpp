#include "packed_linear.h"

#include <cmath>
#include <vector>

#include "../common/gelu.h"
#include "../common/ref.h"

namespace ds {
namespace {

// Row r of x as it meets the weight.
std::vector<double> prepared_row(const Tensor& x, int64_t r, const RowNorm& norm, const PackedWeight& weight) {
  int64_t K = weight.columns;
  std::vector<double> n(static_cast<size_t>(K));
  for (int64_t k = 0; k < K; ++k) n[size_t(k)] = get(x, r * K + k);
  if (norm.kind() != NormKind::none) {
    double mean = 0, variance = 0;
    if (norm.kind() == NormKind::layer)
      for (double v : n) mean += v / double(K);
    for (double v : n) variance += (v - mean) * (v - mean) / double(K);
    for (int64_t k = 0; k < K; ++k) {
      double& v = n[size_t(k)];
      v = (v - mean) / std::sqrt(variance + norm.eps) * get(norm.weight, k) + (norm.bias ? get(norm.bias, k) : 0);
    }
  }
  if (!is_quantised(weight.format()) || x.dtype == DType::f64) return n;
  for (int64_t begin = 0; begin < K; begin += kBlockColumns) {
    int64_t end = begin + kBlockColumns < K ? begin + kBlockColumns : K;
    double largest = 0;
    for (int64_t k = begin; k < end; ++k) {
      double size = std::abs(n[size_t(k)]);
      largest = std::isfinite(size) ? std::max(largest, size) : NAN;
      if (std::isnan(largest)) break;
    }
    for (int64_t k = begin; k < end; ++k) {
      double& v = n[size_t(k)];
      v = std::isnan(largest) ? NAN : largest < kLeastMagnitude ? 0 : std::nearbyint(v * 127 / largest) * largest / 127;
    }
  }
  return n;
}

double product(const std::vector<double>& n, const PackedWeight& weight, int64_t row) {
  double sum = 0;
  for (int64_t k = 0; k < weight.columns; ++k) {
    const uint8_t* block = weight.group(weight.group_of(row)) + k / kBlockColumns * packed_block_bytes(weight.format());
    sum += n[size_t(k)] * double(packed_number(weight.format(), block, k % kBlockColumns, weight.lane_of(row)));
  }
  return sum;
}

double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::none:
      return x;
    case Activation::gelu:
      return 0.5 * x * (1 + std::tanh(kGeluRate * x * (1 + kGeluCubic * x * x)));
    case Activation::gelu_exact:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::relu:
      return x > 0 || std::isnan(x) ? x : 0;
    case Activation::silu:
      return x / (1 + std::exp(-x));
  }
  return 0;
}

}  // namespace

void PackedLinear::ref() const {
  int64_t N = weight.outputs();
  for (int64_t r = 0; r < x.rows(); ++r) {
    auto n = prepared_row(x, r, norm, weight);
    auto sum = [&](int64_t row) { return product(n, weight, row) + (bias ? get(bias, row) : 0); };
    for (int64_t c = 0; c < N; ++c) {
      double value = activate(activation(), sum(c)) * (weight.gated ? sum(N + c) : 1);
      put(y, r * N + c, value + (residual ? get(residual, r * N + c) : 0));
    }
  }
}

void PackedArgmax::ref() const {
  for (int64_t r = 0; r < x.rows(); ++r) {
    auto n = prepared_row(x, r, norm, weight);
    double largest = -INFINITY;
    int32_t winner = 0;
    for (int64_t c = 0; c < weight.rows; ++c) {
      double value = product(n, weight, c);
      if (value > largest || (std::isnan(value) && !std::isnan(largest))) largest = value, winner = int32_t(c);
    }
    out.as<int32_t>()[r] = winner;
  }
}

}  // namespace ds
