// What a load test says at the end: the figures of `vllm bench serve`, and one digest over all answers.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/load_run.h"

namespace invar::launch {

// Linear between neighbours, as numpy does; 0 of nothing. `share` in [0, 1].
double percentile(std::vector<double> values, double share);

struct Latency {
  double mean = 0, median = 0, p99 = 0;  // milliseconds
};

struct LoadReport {
  int64_t completed = 0, failed = 0;
  std::string first_error;
  double seconds = 0, cpu_seconds = 0;
  int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;  // of completed requests
  Latency first_token, between_tokens, whole;
  // SHA-256 over the response digests in the plan's order: arrival, batching and layout do not show in it. Failed requests do.
  std::string digest;

  double requests_per_second() const { return static_cast<double>(completed) / seconds; }
  double output_per_second() const { return static_cast<double>(output_tokens) / seconds; }
  double tokens_per_second() const { return static_cast<double>(prompt_tokens + output_tokens) / seconds; }
};
LoadReport report_of(const LoadResult& result);

nlohmann::ordered_json to_json(const LoadReport& report);  // keys of `vllm bench serve --save-result`, digest besides
std::string to_text(const LoadReport& report);

// Price of invariance: the same load, round after round, on the honest engine and on an arm that is free to add in any order.
struct Price {
  std::string arm;
  // Percent of throughput the honest engine lacks, over the rounds: negative = it is the faster one. Against the clock, and
  // against processor time, which other work on the machine disturbs less.
  double median = 0, least = 0, most = 0;
  double cpu_median = 0;
  double honest_rate = 0, arm_rate = 0;  // tokens per second, medians
  std::string digest;
};
// honest[i] and arm[i] ran one after the other.
Price price_of(const std::string& name, const std::vector<LoadReport>& honest, const std::vector<LoadReport>& arm);

}  // namespace invar::launch
