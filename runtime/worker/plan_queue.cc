#include "runtime/worker/plan_queue.h"

namespace invar {

void PlanQueue::put(const v1::StepPlan& plan) {
  const std::lock_guard lock(mutex_);
  plans_.push_back(plan);
  changed_.notify_all();
}

absl::StatusOr<v1::StepResult> PlanQueue::take(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, wait, [&] { return !results_.empty() || !failure_.empty(); });
  if (!results_.empty()) {
    v1::StepResult result = std::move(results_.front());
    results_.pop_front();
    return result;
  }
  if (!failure_.empty()) return absl::UnavailableError(failure_);
  return absl::DeadlineExceededError("no result yet");
}

void PlanQueue::leave() {
  const std::lock_guard lock(mutex_);
  left_ = true;
  changed_.notify_all();
}

bool PlanQueue::left(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, wait, [&] { return left_; });
}

absl::StatusOr<std::optional<v1::StepPlan>> PlanQueue::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, wait, [&] { return !plans_.empty(); });
  if (plans_.empty()) return std::optional<v1::StepPlan>();
  std::optional<v1::StepPlan> plan(std::move(plans_.front()));
  plans_.pop_front();
  return plan;
}

void PlanQueue::post(const v1::StepResult& result) {
  const std::lock_guard lock(mutex_);
  if (!result.failure().empty())
    failure_ = result.failure();
  else
    results_.push_back(result);
  changed_.notify_all();
}

absl::Status QueueExecutor::submit(const v1::StepPlan& plan) {
  if (queue_.left(std::chrono::milliseconds(0))) return absl::UnavailableError("the ranks have left");
  queue_.put(plan);
  return absl::OkStatus();
}

void QueueExecutor::shutdown(std::chrono::milliseconds wait) {
  if (!shut_down_) {
    shut_down_ = true;
    v1::StepPlan bye;
    bye.set_shutdown(true);
    queue_.put(bye);
  }
  queue_.left(wait);
}

}  // namespace invar
