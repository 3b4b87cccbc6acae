#include "launch/load_plan.h"

#include <cmath>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/arrivals/arrivals.h"

namespace invar::launch {
namespace {

absl::StatusOr<std::vector<Arrival>> recorded_arrivals(const LoadOptions& o) {
  auto arrivals = read_arrivals(o.trace_file, o.num_prompts);
  if (!arrivals.ok()) return absl::Status(arrivals.status().code(), absl::StrCat("--trace-file ", arrivals.status().message()));
  for (Arrival& a : *arrivals) a.at /= o.trace_speedup;
  return arrivals;
}

absl::StatusOr<std::vector<Arrival>> random_arrivals(const LoadOptions& o, std::mt19937_64& random) {
  double rate = 0;  // 0 = all at once
  if (o.request_rate != "inf" && !(absl::SimpleAtod(o.request_rate, &rate) && rate > 0 && std::isfinite(rate)))
    return absl::InvalidArgumentError(absl::StrCat("--request-rate ", o.request_rate, ": must be a number above 0, or inf"));
  std::vector<Arrival> arrivals;
  double at = 0;
  for (int64_t i = 0; i < o.num_prompts; ++i) {
    arrivals.push_back({at, o.random_input_len, o.random_output_len});
    // Gaps of a Poisson process; 53 bits make a number in (0, 1].
    if (rate > 0) at -= std::log(static_cast<double>((random() >> 11) + 1) * 0x1p-53) / rate;
  }
  return arrivals;
}

}  // namespace

absl::StatusOr<LoadPlan> plan_load(const LoadOptions& o, const LoadLimits& limits) {
  if (limits.vocab_size < 1 || limits.max_model_len < 2)
    return absl::InvalidArgumentError(
        absl::StrCat("the model has ", limits.vocab_size, " tokens and ", limits.max_model_len, " positions"));
  if (!(o.trace_speedup > 0 && std::isfinite(o.trace_speedup)))
    return absl::InvalidArgumentError(absl::StrCat("--trace-speedup ", o.trace_speedup, ": must be above 0"));
  if (o.trace_file.empty() && o.random_input_len + o.random_output_len > limits.max_model_len)
    return absl::InvalidArgumentError(absl::StrCat("--random-input-len ", o.random_input_len, " plus --random-output-len ",
                                                   o.random_output_len, ": the model has ", limits.max_model_len, " positions"));
  std::mt19937_64 random(o.seed);
  auto arrivals = o.trace_file.empty() ? random_arrivals(o, random) : recorded_arrivals(o);
  if (!arrivals.ok()) return arrivals.status();
  LoadPlan plan;
  for (const Arrival& a : *arrivals) {
    PlannedRequest& p = plan.requests.emplace_back();
    Arrival fits = a;
    if (!o.trace_file.empty()) plan.clipped += cut_to_context(&fits, limits.max_model_len);
    p.at = a.at;
    p.output_tokens = fits.output_tokens;
    p.prompt_tokens = fits.prompt_tokens;
    auto& ids = *p.request.mutable_prompt_token_ids()->mutable_ids();
    for (int64_t i = 0; i < p.prompt_tokens; ++i)
      ids.Add(static_cast<int32_t>(random() % static_cast<uint64_t>(limits.vocab_size)));
    v1::SamplingParams& s = *p.request.mutable_sampling_params();
    s.set_max_tokens(static_cast<uint32_t>(p.output_tokens));
    s.set_ignore_eos(true);  // the load decides how long an answer is
    s.set_temperature(static_cast<float>(o.temperature));
    s.set_seed(random());
  }
  return plan;
}

}  // namespace invar::launch
