// Sends a planned load to an engine or a server and times every answer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/load_plan.h"

namespace invar::launch {

// Who answers. Callbacks may come from any thread, those of one request in order; `on_done` is the last.
struct LoadTarget {
  std::function<void(const v1::GenerateRequest& request, std::function<void(const v1::GenerateResponse&)> on_response,
                     std::function<void(const absl::Status&)> on_done)>
      start;
  // Ends what still runs: every on_done is called soon. Asked for when a load takes longer than it may.
  std::function<void()> give_up;
};

// All times in seconds from the request's planned arrival: a request that could not be sent in time has waited, too.
struct RequestTimes {
  absl::Status status;
  double first_token = 0;
  double end = 0;
  std::vector<double> gaps;  // between tokens; k tokens that come together share the time since the ones before
  int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
  std::string digest;  // of the response
};

struct LoadResult {
  double seconds = 0;                  // from the start to the last answer
  double cpu_seconds = 0;              // of this process
  std::vector<RequestTimes> requests;  // in the plan's order
};

// `timeout`: seconds after the last arrival when the target is told to give up. `what` names the run on a terminal.
LoadResult run_load(const LoadPlan& plan, const LoadTarget& target, double timeout, const std::string& what);

}  // namespace invar::launch
