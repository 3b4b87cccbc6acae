#include "runtime/model/served_price.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <utility>

namespace invar {
namespace {

// So many steps with ours, the same with free linears, then the other way round: the clock follows the power and changes within
// tenths of a second, and what a change of sides costs (recorded steps are recorded again, untimed) is spread.
constexpr size_t kBlock = 16;

class Price {
 public:
  Price(const Device& device, Decoder& decoder, FreeLinears& linears, const ServedLoad& load)
      : device_(device), decoder_(decoder), linears_(linears), load_(load) {}

  // Buffers grow to their last size, cuBLASLt's algorithms are chosen.
  absl::Status prepare() {
    const auto largest = [&](const auto& size) -> const ServedStep& {
      return *std::max_element(load_.steps.begin(), load_.steps.end(),
                               [&](const ServedStep& a, const ServedStep& b) { return size(a) < size(b); });
    };
    const ServedStep& logits = largest([](const ServedStep& s) { return s.rows.logits.size(); });
    const ServedStep& rows = largest([](const ServedStep& s) { return s.rows.size(); });
    const ServedStep& keys = largest([](const ServedStep& s) {
      size_t entries = 0;
      for (const auto& table : s.page_tables) entries += table.size();
      return entries;
    });
    linears_.turn(false);
    for (const ServedStep* s : {&logits, &rows, &keys}) forward(*s);
    linears_.turn(true);
    for (const ServedStep* s : {&logits, &rows}) forward(*s);
    if (!linears_.linked()) return absl::InternalError("not all of the decoder's linears came to free_linears.cc: see --wrap");
    std::set<int64_t> all_rows, all_logits;
    for (const ServedStep& s : load_.steps) {
      all_rows.insert(s.rows.size());
      const int64_t wanted = static_cast<int64_t>(s.rows.logits.size());
      all_logits.insert(std::min(wanted, kLogitsBlock));
      all_logits.insert(wanted % kLogitsBlock);
    }
    linears_.expect(std::vector(all_rows.begin(), all_rows.end()), std::vector(all_logits.begin(), all_logits.end()));
    linears_.choose();
    return absl::OkStatus();
  }

  // Microseconds of the parts of a step that is not recorded, with ours [0] and with free linears [1]: medians.
  std::array<std::array<double, kStepParts>, 2> parts_of(const ServedStep& step, StepParts& parts) {
    constexpr int kTurns = 5;
    std::array<std::array<std::vector<double>, kStepParts>, 2> all;
    for (int turn = 0; turn < kTurns; ++turn)
      for (const bool free : {turn % 2 == 0, turn % 2 != 0}) {
        linears_.turn(free);
        forward(step);
        parts.time_calls();
        forward(step);
        const auto times = parts.times();
        for (int part = 0; part < kStepParts; ++part) all[free][part].push_back(times[part]);
      }
    linears_.turn(false);
    std::array<std::array<double, kStepParts>, 2> medians{};
    for (const bool free : {false, true})
      for (int part = 0; part < kStepParts; ++part) {
        std::vector<double>& times = all[free][part];
        std::nth_element(times.begin(), times.begin() + kTurns / 2, times.end());
        medians[free][part] = times[kTurns / 2];
      }
    return medians;
  }

  // Seconds of every step with ours [0] and with free linears [1].
  std::array<std::vector<double>, 2> run() {
    std::array<std::vector<double>, 2> seconds;
    for (size_t begin = 0; begin < load_.steps.size(); begin += kBlock) {
      const size_t end = std::min(begin + kBlock, load_.steps.size());
      const bool free_first = begin / kBlock % 2 != 0;
      for (const bool free : {free_first, !free_first}) {
        linears_.turn(free);
        recorded_.clear();
        for (size_t i = begin; i < end; ++i) seconds[free].push_back(timed(load_.steps[i]));
      }
    }
    linears_.turn(false);
    return seconds;
  }

 private:
  void forward(const ServedStep& step) {
    decoder_.forward(step.rows, nullptr, [](int64_t, int64_t, const float*) {});
    device_.synchronize();
  }

  // A decode step as it is in a server that has run for a while: recorded if the decoder records steps of its size.
  double timed(const ServedStep& step) {
    for (;;) {
      if (step.prompt_rows == 0) {
        uint64_t& at = recorded_[{step.rows.size(), step.rows.logits.size()}];
        while (at != Device::allocations()) {
          forward(step);
          at = Device::allocations();
          forward(step);
        }
      }
      const uint64_t before = Device::allocations();
      const auto begin = std::chrono::steady_clock::now();
      forward(step);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      if (Device::allocations() == before) return seconds;  // else a buffer grew: a server's have grown
    }
  }

  const Device& device_;
  Decoder& decoder_;
  FreeLinears& linears_;
  const ServedLoad& load_;
  std::map<std::pair<int64_t, size_t>, uint64_t> recorded_;  // by rows and rows of logits: the allocations when it was
};

// Of a choice of steps.
struct Sum {
  std::array<double, 2> seconds{};
  int64_t prompt_tokens = 0, answer_tokens = 0;
  double price() const { return 100 * (seconds[0] / seconds[1] - 1); }
};

template <class F>
Sum sum(const ServedLoad& load, const std::array<std::vector<double>, 2>& seconds, const F& counts) {
  Sum s;
  for (size_t i = 0; i < load.steps.size(); ++i) {
    const ServedStep& step = load.steps[i];
    if (!counts(step, i)) continue;
    for (int side : {0, 1}) s.seconds[side] += seconds[side][i];
    s.prompt_tokens += step.prompt_tokens;
    s.answer_tokens += static_cast<int64_t>(step.rows.logits.size());
  }
  return s;
}

void print(const char* what, const Sum& s, const Sum& whole) {
  if (s.seconds[1] == 0) return;
  const double tokens = static_cast<double>(s.prompt_tokens + s.answer_tokens);
  std::printf("  %-22s %5.1f %% of the time, %7.3f s, %8.0f tok/s; linears by cuBLASLt %7.3f s, %8.0f tok/s: price %+.1f %%\n",
              what, 100 * s.seconds[0] / whole.seconds[0], s.seconds[0], tokens / s.seconds[0], s.seconds[1],
              tokens / s.seconds[1], s.price());
}

// What mixed steps are, and the parts of the one of median time.
template <class F>
void show_mixed(Price& price, StepParts& parts, const ServedLoad& load, const std::vector<double>& seconds, const F& mixed) {
  std::vector<size_t> all;
  double rows = 0, prompt_rows = 0;
  for (size_t i = 0; i < load.steps.size(); ++i) {
    if (!mixed(load.steps[i])) continue;
    all.push_back(i);
    rows += static_cast<double>(load.steps[i].rows.size());
    prompt_rows += static_cast<double>(load.steps[i].prompt_rows);
  }
  if (all.empty()) return;
  std::nth_element(all.begin(), all.begin() + static_cast<int64_t>(all.size() / 2), all.end(),
                   [&](size_t a, size_t b) { return seconds[a] < seconds[b]; });
  const ServedStep& step = load.steps[all[all.size() / 2]];
  const double count = static_cast<double>(all.size());
  std::printf("  mixed steps have %.0f prompt rows and %.0f decode rows in the mean; one of %ld and %ld, ms (cuBLASLt's):",
              prompt_rows / count, (rows - prompt_rows) / count, long{step.prompt_rows},
              long{step.rows.size() - step.prompt_rows});
  const auto times = price.parts_of(step, parts);
  for (int part = 0; part < kStepParts; ++part)
    if (times[0][part] > 0)
      std::printf(" %s %.2f (%.2f)", std::string(invar::name(StepPart(part))).c_str(), times[0][part] * 1e-3,
                  times[1][part] * 1e-3);
  std::printf("\n");
}

}  // namespace

absl::Status price_serving(const Device& device, Decoder& decoder, FreeLinears& linears, StepParts& parts,
                           const std::string& name, const ServedLoad& load) {
  if (load.steps.empty()) return absl::InvalidArgumentError(name + ": no steps");
  Price price(device, decoder, linears, load);
  if (const absl::Status prepared = price.prepare(); !prepared.ok()) return prepared;
  const std::array<std::vector<double>, 2> seconds = price.run();
  const auto of = [&](const auto& counts) { return sum(load, seconds, counts); };
  const Sum whole = of([](const ServedStep&, size_t) { return true; });
  const ServedOptions& o = load.options;
  std::printf(
      "served  %s: %zu steps, %ld prompt + %ld answer tokens, %ld preemptions; --max-num-seqs %ld "
      "--max-num-batched-tokens %ld --block-size %ld, %ld pages\n",
      name.c_str(), load.steps.size(), long{whole.prompt_tokens}, long{whole.answer_tokens}, static_cast<long>(load.preemptions),
      long{o.max_num_seqs}, long{o.max_num_batched_tokens}, long{o.page_size}, long{o.pages});
  const auto show = [&](const char* what, const auto& counts) { print(what, of(counts), whole); };
  const auto mixed = [](const ServedStep& s) { return s.prompt_rows > 0 && s.prompt_rows < s.rows.size(); };
  show("decode steps", [](const ServedStep& s, size_t) { return s.prompt_rows == 0; });
  show("mixed steps", [&](const ServedStep& s, size_t) { return mixed(s); });
  show("prompt steps", [](const ServedStep& s, size_t) { return s.prompt_rows == s.rows.size(); });
  const bool ends = !load.steps.back().crowded;
  if (ends) show("while requests waited", [](const ServedStep& s, size_t) { return s.crowded; });
  print("whole load", whole, whole);
  show_mixed(price, parts, load, seconds[0], mixed);
  const Sum first = of([](const ServedStep&, size_t i) { return i / kBlock % 2 == 0; });
  const Sum second = of([](const ServedStep&, size_t i) { return i / kBlock % 2 != 0; });
  std::printf("  price of the order, tokens a second: %+.1f %% (in blocks that ours began %+.1f %%, in the others %+.1f %%)\n",
              whole.price(), first.price(), second.seconds[1] > 0 ? second.price() : first.price());
  return absl::OkStatus();
}

}  // namespace invar
