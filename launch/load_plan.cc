#include "launch/load_plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace invar::launch {
namespace {

struct Arrival {
  double at;
  int64_t prompt_tokens, output_tokens;
};

// "2023-11-16 18:15:46.6805900" in seconds since an epoch of its own.
std::optional<double> parse_time(const std::string& text) {
  int year, month, day, hour, minute, read = 0;
  double second;
  if (std::sscanf(text.c_str(), "%d-%d-%d %d:%d:%lf%n", &year, &month, &day, &hour, &minute, &second, &read) != 6)
    return std::nullopt;
  if (static_cast<size_t>(read) != text.size()) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  if (!date.ok() || hour < 0 || hour > 23 || minute < 0 || minute > 59 || !(second >= 0 && second < 61)) return std::nullopt;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return static_cast<double>(((days - 19000) * 24 + hour) * 60 + minute) * 60 + second;
}

absl::StatusOr<std::vector<Arrival>> read_trace(const LoadOptions& o) {
  std::ifstream in(o.trace_file);
  if (!in) return absl::NotFoundError(absl::StrCat("--trace-file ", o.trace_file, ": cannot be read"));
  std::string line;
  std::getline(in, line);
  const std::vector<std::string> header = absl::StrSplit(absl::StripSuffix(line, "\r"), ',');
  const auto column = [&](const char* name) { return std::find(header.begin(), header.end(), name) - header.begin(); };
  const size_t time = column("TIMESTAMP"), prompt = column("ContextTokens"), output = column("GeneratedTokens");
  if (std::max({time, prompt, output}) == header.size())
    return absl::InvalidArgumentError(
        absl::StrCat("--trace-file ", o.trace_file, ":1: the columns TIMESTAMP, ContextTokens and GeneratedTokens are wanted"));
  std::vector<Arrival> arrivals;
  for (int number = 2; static_cast<int64_t>(arrivals.size()) < o.num_prompts && std::getline(in, line); ++number) {
    const std::vector<std::string> cells = absl::StrSplit(absl::StripSuffix(line, "\r"), ',');
    if (cells.size() == 1 && cells[0].empty()) continue;
    Arrival a{};
    const auto at = cells.size() == header.size() ? parse_time(cells[time]) : std::nullopt;
    if (!at || !absl::SimpleAtoi(cells[prompt], &a.prompt_tokens) || !absl::SimpleAtoi(cells[output], &a.output_tokens) ||
        a.prompt_tokens < 0 || a.output_tokens < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("--trace-file ", o.trace_file, ":", number, ": not a time and two counts: ", line));
    a.at = *at;
    arrivals.push_back(a);
  }
  if (arrivals.empty()) return absl::InvalidArgumentError(absl::StrCat("--trace-file ", o.trace_file, ": holds no request"));
  std::stable_sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
  const double first = arrivals.front().at;
  for (Arrival& a : arrivals) a.at = (a.at - first) / o.trace_speedup;
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
  auto arrivals = o.trace_file.empty() ? random_arrivals(o, random) : read_trace(o);
  if (!arrivals.ok()) return arrivals.status();
  LoadPlan plan;
  for (const Arrival& a : *arrivals) {
    PlannedRequest& p = plan.requests.emplace_back();
    p.at = a.at;
    // Too long for the model: the answer gets half of the context at most, the prompt the rest.
    p.output_tokens = std::clamp<int64_t>(a.output_tokens, 1, limits.max_model_len / 2);
    if (o.trace_file.empty()) p.output_tokens = a.output_tokens;
    p.prompt_tokens = std::clamp<int64_t>(a.prompt_tokens, 1, limits.max_model_len - p.output_tokens);
    plan.clipped += p.output_tokens < a.output_tokens || p.prompt_tokens < a.prompt_tokens;
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
