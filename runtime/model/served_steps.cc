#include "runtime/model/served_steps.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/numerics.h"
#include "runtime/engine/scheduler.h"
#include "runtime/worker/sequence_table.h"

namespace invar {
namespace {

// As the engine's: plans run that far ahead of results, so that a sequence that ends leaves its place two steps later.
constexpr size_t kPlansInFlight = 2;

class Load {
 public:
  Load(std::span<const Arrival> arrivals, const ServedOptions& o)
      : options_(o),
        scheduler_({.max_num_seqs = o.max_num_seqs,
                    .max_num_batched_tokens = o.max_num_batched_tokens,
                    .longest_chunk = o.max_num_batched_tokens,
                    .prefix_caching = false},
                   {.pages_per_home = o.pages, .page_size = o.page_size}) {
    for (const Arrival& a : arrivals) {
      auto& s = sequences_.emplace_back(std::make_unique<engine::Sequence>());
      s->arrival = sequences_.size();
      s->prompt_length = a.prompt_tokens;
      s->end = a.prompt_tokens + a.output_tokens - 1;
      s->sampling = &sampling_;
      s->request_id = &request_id_;
      s->logits_from = a.prompt_tokens - 1;
      for (int64_t p = 0; p < a.prompt_tokens; ++p) s->tokens.push_back(token(*s, p));
      scheduler_.add(s.get());
    }
    computed_.resize(sequences_.size());
  }

  absl::StatusOr<ServedLoad> run() {
    ServedLoad load{.options = options_};
    std::deque<std::vector<engine::ExpectedDraws>> in_flight;
    for (;;) {
      v1::StepPlan plan;
      std::vector<engine::ExpectedDraws> expected;
      if (in_flight.size() < kPlansInFlight && scheduler_.build(&plan, &expected)) {
        load.steps.push_back(step_of(plan));
        in_flight.push_back(std::move(expected));
        if (static_cast<int64_t>(load.steps.size()) == options_.most_steps) return finish(std::move(load));
        continue;
      }
      if (in_flight.empty()) break;
      answer(in_flight.front());
      in_flight.pop_front();
    }
    for (const auto& s : sequences_)
      if (s->state != engine::Sequence::State::kDone)
        return absl::InternalError(absl::StrCat("request ", s->arrival - 1, " was not served"));
    return finish(std::move(load));
  }

 private:
  ServedLoad finish(ServedLoad load) const {
    load.preemptions = scheduler_.counts().preemptions;
    return load;
  }

  int32_t token(const engine::Sequence& s, int64_t position) const {
    return static_cast<int32_t>(numerics::mix64(s.arrival << 32 | static_cast<uint64_t>(position)) %
                                static_cast<uint64_t>(options_.vocab_size));
  }

  ServedStep step_of(const v1::StepPlan& plan) {
    ServedStep step;
    table_.apply(plan);
    std::vector<LogitsRow> wanted;
    step.rows = table_.rows_of(plan, 0, options_.page_size, wanted);
    for (const std::span<const int32_t> pages : step.rows.page_tables) step.page_tables.emplace_back(pages.begin(), pages.end());
    step.rows.page_tables.assign(step.page_tables.begin(), step.page_tables.end());
    for (const v1::Chunk& chunk : plan.chunks()) {
      const engine::Sequence& s = *scheduler_.find(chunk.sequence());
      const int64_t first = chunk.first_position(), end = first + chunk.count();
      int64_t& computed = computed_[s.arrival - 1];
      for (int64_t p = first; p < end; ++p) step.rows.tokens.push_back(token(s, p));
      step.prompt_rows += std::max<int64_t>(std::min(end, s.prompt_length) - first, 0);
      step.prompt_tokens += std::max<int64_t>(std::min(end, s.prompt_length) - std::max(first, computed), 0);
      computed = std::max(computed, end);
    }
    step.crowded = scheduler_.counts().waiting > 0;
    return step;
  }

  void answer(const std::vector<engine::ExpectedDraws>& expected) {
    for (const engine::ExpectedDraws& e : expected) {
      engine::Sequence* s = scheduler_.find(e.sequence);
      for (int64_t i = 0; i < e.count; ++i) {
        s->tokens.push_back(token(*s, e.first + i));
        scheduler_.received(s);
      }
      if (static_cast<int64_t>(s->tokens.size()) > s->end) scheduler_.remove(s);
    }
  }

  const ServedOptions options_;
  engine::Scheduler scheduler_;
  SequenceTable table_;
  std::vector<std::unique_ptr<engine::Sequence>> sequences_;  // by arrival - 1
  std::vector<int64_t> computed_;                             // of each, the positions that some step has computed
  const v1::SamplingParams sampling_;
  const std::string request_id_ = "r";
};

}  // namespace

absl::StatusOr<ServedLoad> serve(std::span<const Arrival> arrivals, const ServedOptions& o) {
  for (const auto& [name, value] : {std::pair<const char*, int64_t>{"--max-num-seqs", o.max_num_seqs},
                                    {"--max-num-batched-tokens", o.max_num_batched_tokens},
                                    {"pages", o.pages},
                                    {"page size", o.page_size},
                                    {"vocabulary", o.vocab_size}})
    if (value < 1) return absl::InvalidArgumentError(absl::StrCat(name, " ", value, ": must be 1 or more"));
  for (size_t i = 0; i < arrivals.size(); ++i) {
    const Arrival& a = arrivals[i];
    if (a.prompt_tokens < 1 || a.output_tokens < 1)
      return absl::InvalidArgumentError(absl::StrCat("request ", i, ": ", a.prompt_tokens, " prompt and ", a.output_tokens,
                                                     " answer tokens: both must be 1 or more"));
    if (a.prompt_tokens + a.output_tokens > o.pages * o.page_size)
      return absl::InvalidArgumentError(absl::StrCat("request ", i, ": ", a.prompt_tokens, " prompt and ", a.output_tokens,
                                                     " answer tokens do not fit a KV cache of ", o.pages, " pages of ",
                                                     o.page_size, " tokens"));
  }
  return Load(arrivals, o).run();
}

}  // namespace invar
