// What is counted and timed of requests, whatever protocol they came by. Cheap: it is fed from the engine's thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "runtime/proto/generate.pb.h"

namespace invar::rpc {

// Counts per bucket, Prometheus' way. observe() from any thread.
class Histogram {
 public:
  explicit Histogram(std::vector<double> upper_bounds);
  void observe(double value, uint64_t times = 1);

  struct Snapshot {
    std::vector<double> upper_bounds;
    std::vector<uint64_t> cumulative;  // one more: all
    double sum = 0;
  };
  Snapshot snapshot() const;

 private:
  const std::vector<double> upper_bounds_;
  std::vector<std::atomic<uint64_t>> counts_;
  std::atomic<double> sum_{0};
};

struct RequestMetrics {
  RequestMetrics();
  Histogram time_to_first_token, inter_token, end_to_end, prompt_tokens, generation_tokens;
  std::array<std::atomic<uint64_t>, 5> finished{};  // choices, by v1::FinishReason
  std::atomic<uint64_t> digest_mismatches{0};       // requests that required another model digest
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
