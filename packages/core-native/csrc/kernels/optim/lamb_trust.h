// The trust ratio of LAMB, for every device.
#pragma once
#include <cmath>

#ifdef __CUDACC__
#define DS_HOST_DEVICE __host__ __device__
#else
#define DS_HOST_DEVICE
#endif

namespace ds {

// A NaN passes both limits.
DS_HOST_DEVICE inline double lamb_trust(const double* squares, double lowest, double highest) {
  if (squares[0] == 0 || squares[1] == 0) return 1;
  double ratio = sqrt(squares[0] / squares[1]);
  return ratio < lowest ? lowest : ratio > highest ? highest : ratio;
}

}  // namespace ds
