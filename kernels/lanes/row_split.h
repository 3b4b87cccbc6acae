// Hands whole rows to the threads of a device. A row is never cut, so the thread count cannot reach a bit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

// Calls f(begin, end) over disjoint ranges that cover [0, rows). Work below about ten microseconds stays on the caller:
// waking a thread costs as much.
template <class F>
void split_rows(ThreadPool& pool, int64_t rows, int64_t elements_per_row, const F& f) {
  constexpr int64_t kElementsPerPart = 32768;
  if (rows <= 0) return;
  const int64_t worth = rows * std::max<int64_t>(elements_per_row, 1) / kElementsPerPart;
  const int64_t parts = std::min({rows, worth, int64_t{4} * pool.threads()});
  if (parts <= 1 || pool.threads() == 1) return f(int64_t{0}, rows);
  pool.run(parts, [&](int64_t part) { f(rows * part / parts, rows * (part + 1) / parts); });
}

}  // namespace invar
