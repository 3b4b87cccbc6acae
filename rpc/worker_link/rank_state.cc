#include "rpc/worker_link/rank_state.h"

#include <algorithm>

namespace invar::rpc {
namespace {

using Clock = RankProgress::Clock;
using std::chrono::microseconds;
constexpr size_t kMaxText = 256;
constexpr uint64_t kLongest = uint64_t{365} * 24 * 3600 * 1000000;  // a year: keeps a nonsensical age from overflowing

uint64_t age(Clock::time_point heard, Clock::time_point then) {
  return static_cast<uint64_t>(std::max<int64_t>(0, std::chrono::duration_cast<microseconds>(heard - then).count()));
}

}  // namespace

v1::RankState to_proto(int replica, const RankProgress& progress) {
  v1::RankState state;
  state.set_replica(static_cast<uint32_t>(replica));
  state.set_rank(static_cast<uint32_t>(progress.rank));
  state.set_host(progress.host);
  state.set_steps_begun(progress.steps_begun);
  state.set_steps_finished(progress.steps_finished);
  state.set_collectives_begun(progress.collectives_begun);
  state.set_collectives_finished(progress.collectives_finished);
  state.set_phase(progress.phase);
  state.set_collective(progress.collective);
  state.set_waiting(progress.waiting);
  state.set_since_moved_us(age(progress.heard, progress.moved));
  state.set_since_step_ended_us(age(progress.heard, progress.step_ended));
  return state;
}

RankProgress to_progress(const v1::RankState& state) {
  RankProgress p;
  p.rank = static_cast<int>(state.rank());
  p.host = state.host().substr(0, kMaxText);
  p.steps_begun = state.steps_begun();
  p.steps_finished = state.steps_finished();
  p.collectives_begun = state.collectives_begun();
  p.collectives_finished = state.collectives_finished();
  p.phase = state.phase().substr(0, kMaxText);
  p.collective = state.collective();
  p.waiting = state.waiting();
  p.heard = Clock::now();
  p.moved = p.heard - microseconds(std::min(state.since_moved_us(), kLongest));
  p.step_ended = p.heard - microseconds(std::min(state.since_step_ended_us(), kLongest));
  return p;
}

}  // namespace invar::rpc
