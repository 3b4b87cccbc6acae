// One replica as the engine drives it: its scheduler, the plans on their way, and the thread that waits for results.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/engine/executor.h"
#include "runtime/engine/scheduler.h"

namespace invar::engine {

// Used by the engine's thread, but for the collector, which only calls Executor::next.
class Replica {
 public:
  using Clock = std::chrono::steady_clock;
  // Called from the collector's thread. After an error status nothing follows.
  using OnResult = std::function<void(absl::StatusOr<v1::StepResult>)>;

  Replica(std::unique_ptr<Executor> executor, const SchedulerLimits& limits);
  ~Replica();  // joins the collector

  void start_collecting(OnResult on_result);
  void stop_collecting();

  // Builds and submits one plan. False when there is nothing to do now, or the worker group is lost: then `status` says so.
  // The plan stays readable in `plan` for the caller.
  bool submit_next(const std::function<void(const v1::StepPlan&)>& observer, v1::StepPlan* plan, absl::Status* status);

  // Checks a result against the oldest plan in flight before anything is done with it: step number, exactly the draws that live
  // sequences wait for, token ids of the vocabulary. Internal otherwise: ranks and coordinator no longer agree on what happens.
  struct Draw {
    Sequence* sequence;
    std::span<const v1::TokenResult* const> results;  // ascending positions
  };
  struct Matched {
    std::vector<const v1::TokenResult*> results;  // in order of (sequence, position)
    std::vector<Draw> draws;
  };
  absl::StatusOr<Matched> match(const v1::StepResult& result);

  // Marks it lost and hands its sequences back.
  std::vector<Sequence*> lose(const absl::Status& why);

  const ReplicaFacts& facts() const { return executor_->facts(); }
  Executor& executor() { return *executor_; }
  Scheduler& scheduler() { return scheduler_; }
  bool alive() const { return alive_; }
  const absl::Status& failure() const { return failure_; }
  int in_flight() const { return static_cast<int>(in_flight_.size()); }
  // Since when the oldest plan in flight has had the ranks to itself; only with plans in flight.
  Clock::time_point step_began() const { return std::max(in_flight_.front().submitted, last_result_); }
  double last_step_seconds() const { return last_step_seconds_; }
  uint64_t steps() const { return steps_; }

  int64_t load = 0;      // unfinished sequences given to it
  bool overdue = false;  // a step has taken longer than it may; kept by the engine

 private:
  struct InFlight {
    uint64_t step;
    std::vector<ExpectedDraws> expected;
    Clock::time_point submitted;
  };

  std::unique_ptr<Executor> executor_;
  Scheduler scheduler_;
  std::deque<InFlight> in_flight_;
  uint64_t next_step_ = 1;
  uint64_t steps_ = 0;
  bool alive_ = true;
  absl::Status failure_;
  Clock::time_point last_result_{};
  double last_step_seconds_ = 0;
  std::atomic<bool> stop_{false};
  std::thread collector_;
};

}  // namespace invar::engine
