// Where the leader rank of a replica takes plans from and puts results: a queue in the same process (threads) or the worker link
// to the coordinator (rpc).
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/proto/step.pb.h"

namespace invar {

class PlanChannel {
 public:
  virtual ~PlanChannel() = default;
  // The next plan, or nothing if none came within `wait`. Unavailable when the other side is gone: the ranks then leave.
  virtual absl::StatusOr<std::optional<v1::StepPlan>> next(std::chrono::milliseconds wait) = 0;
  // Results go back in step order. Losing the other side shows in next().
  virtual void post(const v1::StepResult& result) = 0;
};

}  // namespace invar
