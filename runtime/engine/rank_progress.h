// How far each rank of a replica has come, as whoever holds this last heard of it: who is behind, and in which collective, when a
// step does not end.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace invar {

struct RankProgress {
  using Clock = std::chrono::steady_clock;
  int rank = 0;  // in the whole layout
  std::string host;
  int group = 0;  // its tensor-parallel group: ranks that compute the same steps and meet in the same collectives
  // Since its first plan.
  uint64_t steps_begun = 0, steps_finished = 0;
  // Exchanges with other ranks. Ranks of one group have equal numbers when none of them is behind.
  uint64_t collectives_begun = 0, collectives_finished = 0;
  // The exchange it is in, or was in last, as PeerFailure names it: phase and number in its group. Empty = none yet.
  std::string phase;
  uint64_t collective = 0;
  bool waiting = false;  // in `phase`: for a peer, if it is not the transport itself that hangs
  // On this process' clock. Ages are for the reader to compute: a rank that hangs says nothing of it.
  Clock::time_point heard;       // when this was learnt; of ranks of this process always now
  Clock::time_point moved;       // when a counter last rose
  Clock::time_point step_ended;  // when steps_finished last rose
};

// For a step that does not end: the ranks that wait for nobody, or whose process has been silent for seconds; where all wait,
// those with fewer collectives than others of their group; and what the others wait in. Empty without ranks, and where nothing is
// under way.
//   "rank 1 on host b does not wait for anybody: step 7 under way, 41 collectives, the last tree all-reduce (gather) (collective
//    40); rank 0 on host a waits in tree all-reduce (gather) (collective 41)"
std::string describe_stall(const std::vector<RankProgress>& ranks, RankProgress::Clock::time_point now);

}  // namespace invar
