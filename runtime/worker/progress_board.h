// Where a rank writes how far it has come, for others to read while it works. Costs it some loads and stores and, an exchange,
// two looks at the clock; readers cost it nothing.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "parallel/transport/transport.h"
#include "runtime/engine/rank_progress.h"

namespace invar {

// Written by the rank's thread only, but for read().
class ProgressBoard {
 public:
  ProgressBoard(int rank, std::string host, int group) : rank_(rank), group_(group), host_(std::move(host)) { restart(); }

  void restart();  // before the first plan: what was exchanged while loading is not counted
  void step_begins();
  void step_ends();
  // `phase` is not copied: a literal, as all names of phases are.
  void exchange_begins(const char* phase, uint64_t collective);
  void exchange_ends();
  // A wait for a peer that depends on timing and therefore is not counted.
  void wait_begins(const char* phase);
  void wait_ends();

  // From any thread. Values may be of moments some instructions apart.
  RankProgress read() const;

 private:
  using Clock = RankProgress::Clock;
  void moved();

  const int rank_, group_;
  const std::string host_;
  std::atomic<uint64_t> steps_begun_{0}, steps_finished_{0}, collectives_begun_{0}, collectives_finished_{0}, collective_{0};
  std::atomic<const char*> phase_{""};
  std::atomic<bool> waiting_{false};
  std::atomic<Clock::rep> moved_{0}, step_ended_{0};  // since the clock's epoch
};

// `inner` as it is, its exchanges noted on `board`. Both outlive it.
std::unique_ptr<parallel::Transport> watched(parallel::Transport& inner, ProgressBoard& board);

}  // namespace invar
