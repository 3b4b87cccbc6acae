// What is counted and timed of requests, whatever protocol they came by. Cheap: it is fed from the engine's thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "runtime/engine/histogram.h"
#include "runtime/proto/generate.pb.h"

namespace invar::rpc {

struct RequestMetrics {
  RequestMetrics();
  Histogram time_to_first_token, inter_token, end_to_end, prompt_tokens, generation_tokens;
  std::array<std::atomic<uint64_t>, 5> finished{};         // choices, by v1::FinishReason
  std::array<std::atomic<uint64_t>, 4> rank_mismatches{};  // workers refused, by Mismatch (rpc/worker_link/admission.h)
};

// One request's clock: give it everything the engine says of the request.
class RequestTimer {
 public:
  explicit RequestTimer(std::shared_ptr<RequestMetrics> metrics) : metrics_(std::move(metrics)) {}
  void take(const absl::Status& status, const v1::GenerateResponse* response);

 private:
  using Clock = std::chrono::steady_clock;
  struct Choice {
    Clock::time_point last;
    uint64_t tokens = 0;
  };
  const std::shared_ptr<RequestMetrics> metrics_;
  const Clock::time_point began_ = Clock::now();
  std::vector<Choice> choices_;
};

}  // namespace invar::rpc
