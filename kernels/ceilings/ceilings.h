// What this machine can do at most, measured in the same run and on the same threads as what is compared with it. For benches
// only.
#pragma once

#include <algorithm>
#include <chrono>

#include "kernels/device/device.h"

namespace invar::ceilings {

// Seconds of one call f(): the shortest window of at least `window` seconds within `seconds`, at least two windows. The machine
// may be shared: short windows find the moments when nobody else runs.
template <class F>
double best_time(double seconds, double window, const F& f) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
  f();
  double best = 1e30;
  const auto start = Clock::now();
  for (int windows = 0; windows < 2 || since(start) < seconds; ++windows) {
    const auto begin = Clock::now();
    double t = 0;
    int calls = 0;
    do {
      f();
      ++calls;
      t = since(begin);
    } while (t < window);
    best = std::min(best, t / calls);
  }
  return best;
}

// Rates of memory, over areas too large for any cache. A shared machine changes from second to second: measure by turns with what
// is compared and take the best of each.
class MemoryCeiling {
 public:
  explicit MemoryCeiling(const Device& device);
  // Bytes read plus bytes written per second of a copy, measured for `seconds`.
  double copy_rate(double seconds);
  // Bytes per second of reading.
  double read_rate(double seconds);

 private:
  const Device& device_;
  Buffer from_, to_;
};

// fp32 operations per second (a fused multiply-add counts as two) of independent chains in registers, on the device's vectors.
double fma_rate(const Device& device, double seconds);

}  // namespace invar::ceilings
