// Times of what a device's stream does. For benches only.
#pragma once

#include <functional>
#include <vector>

#include "kernels/device/device.h"

namespace invar::ceilings {

class Stopwatch {
 public:
  explicit Stopwatch(const Device& device);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  // Microseconds from the first to the last of what `queue` puts into the stream.
  double once(const std::function<void()>& queue) const;
  // Microseconds of one call of `count` in a row, recorded as a CUDA graph, call(0) .. call(count - 1): the median of so many
  // replays after one that does not count. call() neither waits nor allocates.
  double in_graph(const std::function<void(int)>& call, int count, int replays = 7) const;
  // Microseconds of one call of each, for rivals that are compared at many operations a call: each runs for some 10 ms at a time,
  // by turns, and as long beforehand, because the clock of a card at its power limit follows what ran before. Medians of so many
  // turns.
  std::vector<double> by_turns(const std::vector<std::function<void()>>& rivals, int turns = 7) const;

 private:
  const Device& device_;
  void* begin_ = nullptr;  // events
  void* end_ = nullptr;
};

}  // namespace invar::ceilings
