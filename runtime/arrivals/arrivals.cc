#include "runtime/arrivals/arrivals.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/numerics.h"

namespace invar {
namespace {

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

// 2^(median + octaves * a normal deviate), between `least` and `most`. The deviate is a sum of eight uniform ones, which ends at
// 4.9 deviations; 2^x runs straight between its powers.
int64_t made_length(uint64_t* state, int64_t median, int64_t quarter_octaves, int64_t least, int64_t most) {
  constexpr int64_t kOne = 1 << 16;         // exponents have 16 fractional bits
  constexpr int64_t kMean = 8 * 65535 / 2;  // of the sum
  constexpr int64_t kDeviation = 53510;     // 65536 * sqrt(8 / 12)
  int64_t sum = 0;
  for (int i = 0; i < 8; ++i) sum += static_cast<int64_t>(numerics::mix64((*state)++) & 0xffff);
  const int64_t x = median * kOne + (sum - kMean) * quarter_octaves * kOne / 4 / kDeviation;
  const int64_t power = int64_t{1} << (x / kOne);
  return std::clamp(power + power * (x % kOne) / kOne, least, most);
}

}  // namespace

absl::StatusOr<std::vector<Arrival>> read_arrivals(const std::string& path, int64_t most) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  std::string line;
  std::getline(in, line);
  const std::vector<std::string> header = absl::StrSplit(absl::StripSuffix(line, "\r"), ',');
  const auto column = [&](const char* name) { return std::find(header.begin(), header.end(), name) - header.begin(); };
  const size_t time = column("TIMESTAMP"), prompt = column("ContextTokens"), output = column("GeneratedTokens");
  if (std::max({time, prompt, output}) == header.size())
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":1: the columns TIMESTAMP, ContextTokens and GeneratedTokens are wanted"));
  std::vector<Arrival> arrivals;
  for (int number = 2; static_cast<int64_t>(arrivals.size()) < most && std::getline(in, line); ++number) {
    const std::vector<std::string> cells = absl::StrSplit(absl::StripSuffix(line, "\r"), ',');
    if (cells.size() == 1 && cells[0].empty()) continue;
    Arrival a;
    const auto at = cells.size() == header.size() ? parse_time(cells[time]) : std::nullopt;
    if (!at || !absl::SimpleAtoi(cells[prompt], &a.prompt_tokens) || !absl::SimpleAtoi(cells[output], &a.output_tokens) ||
        a.prompt_tokens < 0 || a.output_tokens < 0)
      return absl::InvalidArgumentError(absl::StrCat(path, ":", number, ": not a time and two counts: ", line));
    a.at = *at;
    arrivals.push_back(a);
  }
  if (arrivals.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": holds no request"));
  std::stable_sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
  const double first = arrivals.front().at;
  for (Arrival& a : arrivals) a.at -= first;
  return arrivals;
}

std::vector<Arrival> made_arrivals(int64_t count, uint64_t seed) {
  std::vector<Arrival> arrivals(static_cast<size_t>(count));
  uint64_t state = numerics::mix64(seed);
  for (Arrival& a : arrivals) {
    a.prompt_tokens = made_length(&state, 9, 5, 4, 8192);
    a.output_tokens = made_length(&state, 7, 4, 4, 1024);
  }
  return arrivals;
}

bool cut_to_context(Arrival* a, int64_t max_model_len) {
  const Arrival whole = *a;
  a->output_tokens = std::clamp<int64_t>(a->output_tokens, 1, max_model_len / 2);
  a->prompt_tokens = std::clamp<int64_t>(a->prompt_tokens, 1, max_model_len - a->output_tokens);
  return a->output_tokens < whole.output_tokens || a->prompt_tokens < whole.prompt_tokens;
}

}  // namespace invar
