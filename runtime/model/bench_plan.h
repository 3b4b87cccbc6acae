// What runtime_decoder_cuda_bench is asked for, and the steps that this means.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"
#include "runtime/engine/engine.h"
#include "runtime/model/served_steps.h"
#include "runtime/model_config/model_config.h"
#include "runtime/worker/rank_options.h"

namespace invar {

struct BenchOptions {
  std::string model, profile = "tc", exchange = "peer";
  std::vector<std::string> decode = {"1x512", "64x1024"};
  std::vector<int64_t> prefill = {8192};
  int threads = 16, tp = 1;
  int steps = 20;
  bool eager = false;
  bool price = false, breakdown = false;
  // Of a server with the engine's own defaults.
  std::vector<std::string> traces;
  int64_t trace_requests = 512, trace_steps = 256;
  int64_t max_num_seqs = EngineOptions().max_num_seqs, max_num_batched_tokens = EngineOptions().max_num_batched_tokens;
  double gpu_memory_utilization = RankOptions().gpu_memory_utilization;
  int64_t page_size = 64;
};

struct BenchShape {
  int64_t rows, context;
};

struct BenchPlan {
  ModelConfig config;
  Profile profile;
  std::vector<BenchShape> decode;
  std::vector<ServedLoad> served;   // by trace
  int64_t tokens = 1, longest = 1;  // KV slots, positions
};

// `gpu_memory`: bytes of a GPU, of which a traced server's keys and values take the share that the engine gives them. Read with
// traces only. InvalidArgument or NotFound naming the flag.
absl::StatusOr<BenchPlan> plan_bench(const BenchOptions& options, int64_t gpu_memory);

}  // namespace invar
