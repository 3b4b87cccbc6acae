#include "launch/load_report.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/receipt/sha256.h"

namespace invar::launch {
namespace {

Latency latency_of(const std::vector<double>& seconds) {
  double sum = 0;
  for (double s : seconds) sum += s;
  return {.mean = seconds.empty() ? 0 : 1e3 * sum / static_cast<double>(seconds.size()),
          .median = 1e3 * percentile(seconds, 0.5),
          .p99 = 1e3 * percentile(seconds, 0.99)};
}

// What the honest engine lacks of the other rate.
double lack(double honest, double other) { return 100 * (1 - honest / other); }

}  // namespace

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double at = share * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(at), above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - std::floor(at)) * (values[above] - values[below]);
}

LoadReport report_of(const LoadResult& result) {
  LoadReport r;
  r.seconds = result.seconds;
  r.cpu_seconds = result.cpu_seconds;
  std::vector<double> first, gaps, whole;
  receipt::Sha256 digest;
  digest.text("load").le64(result.requests.size());
  for (const RequestTimes& t : result.requests) {
    if (!t.status.ok()) {
      if (r.failed++ == 0) r.first_error = std::string(t.status.message());
      digest.text("failed");
      continue;
    }
    ++r.completed;
    r.prompt_tokens += t.prompt_tokens;
    r.output_tokens += t.output_tokens;
    r.cached_tokens += t.cached_tokens;
    first.push_back(t.first_token);
    gaps.insert(gaps.end(), t.gaps.begin(), t.gaps.end());
    whole.push_back(t.end);
    digest.text(t.digest);
  }
  r.first_token = latency_of(first);
  r.between_tokens = latency_of(gaps);
  r.whole = latency_of(whole);
  r.digest = receipt::hex(digest.finish());
  return r;
}

nlohmann::ordered_json to_json(const LoadReport& r) {
  nlohmann::ordered_json j = {{"completed", r.completed},
                              {"failed", r.failed},
                              {"duration", r.seconds},
                              {"total_input_tokens", r.prompt_tokens},
                              {"total_output_tokens", r.output_tokens},
                              {"total_cached_tokens", r.cached_tokens},
                              {"request_throughput", r.requests_per_second()},
                              {"output_throughput", r.output_per_second()},
                              {"total_token_throughput", r.tokens_per_second()}};
  const auto add = [&](const char* what, const Latency& l) {
    j[absl::StrCat("mean_", what, "_ms")] = l.mean;
    j[absl::StrCat("median_", what, "_ms")] = l.median;
    j[absl::StrCat("p99_", what, "_ms")] = l.p99;
  };
  add("ttft", r.first_token);
  add("itl", r.between_tokens);
  add("e2el", r.whole);
  j["digest"] = r.digest;
  if (r.failed) j["first_error"] = r.first_error;
  return j;
}

std::string to_text(const LoadReport& r) {
  std::string out;
  const auto count = [&](const char* what, int64_t n) { absl::StrAppendFormat(&out, "%-32s %12d\n", what, n); };
  const auto number = [&](const char* what, double x) { absl::StrAppendFormat(&out, "%-32s %12.2f\n", what, x); };
  count("Successful requests:", r.completed);
  if (r.failed) {
    count("Failed requests:", r.failed);
    absl::StrAppend(&out, "  the first: ", r.first_error, "\n");
  }
  number("Duration (s):", r.seconds);
  count("Input tokens:", r.prompt_tokens);
  if (r.cached_tokens) count("  of them from the prefix cache:", r.cached_tokens);
  count("Output tokens:", r.output_tokens);
  number("Request throughput (req/s):", r.requests_per_second());
  number("Output throughput (tok/s):", r.output_per_second());
  number("Total throughput (tok/s):", r.tokens_per_second());
  absl::StrAppendFormat(&out, "%-32s %12s %12s %12s\n", "", "mean", "median", "p99");
  const auto latency = [&](const char* what, const Latency& l) {
    absl::StrAppendFormat(&out, "%-32s %12.2f %12.2f %12.2f\n", what, l.mean, l.median, l.p99);
  };
  latency("Time to first token (ms):", r.first_token);
  latency("Inter-token latency (ms):", r.between_tokens);
  latency("End-to-end latency (ms):", r.whole);
  absl::StrAppend(&out, "Digest of all answers: ", r.digest, "\n");
  return out;
}

Price price_of(const std::string& name, const std::vector<LoadReport>& honest, const std::vector<LoadReport>& arm) {
  Price p{.arm = name, .digest = arm.front().digest};
  std::vector<double> prices, cpu, honest_rates, arm_rates;
  for (size_t i = 0; i < arm.size(); ++i) {
    honest_rates.push_back(honest[i].tokens_per_second());
    arm_rates.push_back(arm[i].tokens_per_second());
    prices.push_back(lack(honest_rates.back(), arm_rates.back()));
    cpu.push_back(lack(arm[i].cpu_seconds, honest[i].cpu_seconds));
  }
  p.median = percentile(prices, 0.5);
  p.least = percentile(prices, 0);
  p.most = percentile(prices, 1);
  p.cpu_median = percentile(cpu, 0.5);
  p.honest_rate = percentile(honest_rates, 0.5);
  p.arm_rate = percentile(arm_rates, 0.5);
  return p;
}

}  // namespace invar::launch
