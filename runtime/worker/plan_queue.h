// Plans and results between the engine's thread and a leader rank in the same process.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>

#include "runtime/engine/executor.h"
#include "runtime/worker/plan_channel.h"

namespace invar {

class PlanQueue : public PlanChannel {
 public:
  void put(const v1::StepPlan& plan);
  // DeadlineExceeded: none within `wait`. Unavailable, now and ever after: a posted result said the worker group is lost.
  absl::StatusOr<v1::StepResult> take(std::chrono::milliseconds wait);
  // The leader has left: nothing put from now on will be run.
  void leave();
  // False: the leader has not left within `wait`.
  bool left(std::chrono::milliseconds wait);

  absl::StatusOr<std::optional<v1::StepPlan>> next(std::chrono::milliseconds wait) override;
  void post(const v1::StepResult& result) override;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<v1::StepPlan> plans_;
  std::deque<v1::StepResult> results_;
  std::string failure_;
  bool left_ = false;
};

// A replica whose leader runs on another thread of this process; the ranks behind it may be anywhere.
class QueueExecutor : public Executor {
 public:
  QueueExecutor(PlanQueue& queue, ReplicaFacts facts) : queue_(queue), facts_(std::move(facts)) {}
  const ReplicaFacts& facts() const override { return facts_; }
  absl::Status submit(const v1::StepPlan& plan) override;
  absl::StatusOr<v1::StepResult> next(std::chrono::milliseconds wait) override { return queue_.take(wait); }
  void shutdown(std::chrono::milliseconds wait) override;

 private:
  PlanQueue& queue_;
  ReplicaFacts facts_;
  bool shut_down_ = false;
};

}  // namespace invar
