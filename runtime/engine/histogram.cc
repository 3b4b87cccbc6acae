#include "runtime/engine/histogram.h"

#include <algorithm>

namespace invar {

Histogram::Histogram(std::vector<double> upper_bounds)
    : upper_bounds_(std::move(upper_bounds)), counts_(upper_bounds_.size() + 1) {}

void Histogram::observe(double value, uint64_t times) {
  const auto bucket = std::lower_bound(upper_bounds_.begin(), upper_bounds_.end(), value) - upper_bounds_.begin();
  counts_[static_cast<size_t>(bucket)].fetch_add(times, std::memory_order_relaxed);
  sum_.fetch_add(value * static_cast<double>(times), std::memory_order_relaxed);
}

Histogram::Snapshot Histogram::snapshot() const {
  Snapshot out{upper_bounds_, {}, sum_.load(std::memory_order_relaxed)};
  uint64_t total = 0;
  for (const auto& count : counts_) out.cumulative.push_back(total += count.load(std::memory_order_relaxed));
  return out;
}

}  // namespace invar
