#include "measure.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "../../runtime/memory.h"
#include "../../runtime/pool.h"

namespace ds {

double RooflinePass::work() const {
  constexpr double kWork[] = {8, 8, 4, 12, 28, 2 * kRooflineSteps};  // an element
  return double(n) * kWork[int(kind)];
}

double measure_roofline(Roofline kind, int64_t elements, int repeats) {
  int64_t n = std::max<int64_t>(elements, 1);
  Arena arena = Arena::on_host();
  size_t bytes = block_bytes(size_t(n) * sizeof(float));
  RooflinePass pass{kind, nullptr, nullptr, nullptr, nullptr, n};
  if (kind != Roofline::fma)
    for (float** array : {&pass.a, &pass.b, &pass.c, &pass.d}) {
      *array = static_cast<float*>(arena.allocate(bytes));
      // Pages that were only read would all be the one page of zeros, and sit in the cache.
      parallel_ranges(n, 1 << 16, [&](int64_t begin, int64_t end) { std::fill(*array + begin, *array + end, 1.0f); });
    }
  pass.cpu();
  std::vector<double> rates;
  for (int i = 0; i < repeats; ++i) {
    auto start = std::chrono::steady_clock::now();
    pass.cpu();
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    rates.push_back(pass.work() / seconds.count());
  }
  std::nth_element(rates.begin(), rates.begin() + repeats / 2, rates.end());
  return rates[size_t(repeats / 2)];
}

}  // namespace ds
