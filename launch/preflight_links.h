// How fast bytes move between ranks, and whether they arrive as they were sent. Collective over all ranks of a transport; each
// wait has the transport's deadline and ends in a PeerFailure that names who waited for whom in which phase.
#pragma once

#include <string>
#include <vector>

#include "parallel/transport/transport.h"

namespace invar::launch {

struct PairTimes {
  double latency_us = 0;   // half a round trip of 8 bytes, the best of several
  double gigabytes_s = 0;  // of 4 MiB, the best of several
};
struct LinkReport {
  int ranks = 0;
  std::vector<PairTimes> pairs;       // [a * ranks + b], a < b; on rank 0 only
  double ring_gigabytes_s = 0;        // all ranks send to their next at once: what each gets; on rank 0 only
  std::vector<double> clock_offsets;  // seconds that a rank's clock is ahead of rank 0's; on rank 0 only
  const PairTimes& pair(int a, int b) const { return pairs[static_cast<size_t>(std::min(a, b) * ranks + std::max(a, b))]; }
};

// Pairs are measured in rounds, those of a round at the same time. Throws PeerFailure; std::runtime_error names the two ranks
// when bytes arrive changed.
LinkReport measure_links(parallel::Transport& transport);

// Tables for a few ranks, the extremes for many. `hosts`: of each rank.
std::string to_text(const LinkReport& report, const std::vector<std::string>& hosts);

}  // namespace invar::launch
