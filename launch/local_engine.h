// The whole engine in this process: model, tokenizer, ranks as threads, scheduler. What `generate` and `verify` use, and `serve`
// without MPI.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/flags.h"
#include "runtime/engine/engine.h"
#include "runtime/worker/local_executor.h"

namespace invar::launch {

struct LocalEngine {
  std::unique_ptr<LoadedModel> model;  // outlives the ranks
  std::string digest;
  std::vector<RankReport> ranks;  // of all replicas
  std::unique_ptr<Engine> engine;
};

// Loads everything; progress goes to a terminal on stderr. Errors name the flag or file.
absl::StatusOr<LocalEngine> start_local_engine(const RankFlags& ranks, const EngineFlags& engine);

// Adds a response's deltas to `whole`: texts, ids, log-probabilities and hashes concatenate, the last words win. Choices are in
// order of their index.
void append_response(v1::GenerateResponse& whole, const v1::GenerateResponse& delta);

// Submits all requests at once and waits for all answers, in request order.
std::vector<absl::StatusOr<v1::GenerateResponse>> run_all(Engine& engine, const std::vector<v1::GenerateRequest>& requests);

}  // namespace invar::launch
