// What a load test asks for, and when: random prompts that arrive at random, or a recorded trace. Made from the flags alone, so
// that two runs with equal flags ask the same.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/proto/generate.pb.h"

namespace invar::launch {

// Names are those of `vllm bench serve`.
struct LoadOptions {
  int64_t num_prompts = 32;
  std::string request_rate = "inf";  // a second, in the mean; inf = all at once
  std::string trace_file;            // instead: CSV with TIMESTAMP, ContextTokens, GeneratedTokens
  double trace_speedup = 1;          // its clock runs this much faster
  int64_t random_input_len = 128;
  int64_t random_output_len = 32;
  double temperature = 0;
  uint64_t seed = 0;
};

// What the model can take.
struct LoadLimits {
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
};

struct PlannedRequest {
  double at = 0;  // seconds after the start
  v1::GenerateRequest request;
  int64_t prompt_tokens = 0, output_tokens = 0;
};

struct LoadPlan {
  std::vector<PlannedRequest> requests;  // ascending in time
  int64_t clipped = 0;                   // requests of the trace that were longer than the model's context
};

// InvalidArgument or NotFound, naming flag or file and line.
absl::StatusOr<LoadPlan> plan_load(const LoadOptions& options, const LoadLimits& limits);

}  // namespace invar::launch
