// The steps that an engine makes of a load: planned by its own scheduler with nothing behind it, so that a bench can run them one
// by one. No prefix is shared, and no answer ends before its length.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/arrivals/arrivals.h"
#include "runtime/model/step_rows.h"

namespace invar {

struct ServedOptions {
  int64_t max_num_seqs = 0;
  int64_t max_num_batched_tokens = 0;
  int64_t pages = 0, page_size = 0;  // of the KV cache: too few, and sequences are preempted and computed again
  int64_t vocab_size = 0;
  int64_t most_steps = 0;  // the first ones only; 0 = until all requests have been served
};

struct ServedStep {
  StepRows rows;  // its page tables are those below
  std::vector<std::vector<int32_t>> page_tables;
  int64_t prompt_rows = 0;  // of rows.size()
  // Prompt tokens that no step has computed before: a preempted sequence's are computed again, which serves nobody. Every logits
  // row is a new answer token.
  int64_t prompt_tokens = 0;
  bool crowded = false;  // requests wait for a place
};

struct ServedLoad {
  ServedOptions options;
  std::vector<ServedStep> steps;
  uint64_t preemptions = 0;
};

// All requests are there from the start, in their order; `arrivals` fit the model (cut_to_context). InvalidArgument naming the
// option or the request that cannot be served.
absl::StatusOr<ServedLoad> serve(std::span<const Arrival> arrivals, const ServedOptions& options);

}  // namespace invar
