// What a rank knows of the sequences of its replica: a copy of what the plans said, no policy of its own.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "kernels/logits/logits.h"
#include "runtime/model/step_rows.h"
#include "runtime/proto/step.pb.h"
#include "runtime/proto/trace.pb.h"

namespace invar {

struct RankSequence {
  uint32_t home = 0;
  std::vector<int32_t> tokens;  // known so far; grows by the draws
  uint32_t prompt_length = 0;
  SamplingControls controls;
  std::vector<LogitBias> bias;       // of all its draws
  std::vector<uint8_t> allowed;      // tokens of all its draws, as SampleProblem::allowed; empty = all
  std::vector<int32_t> late_tokens;  // not drawn for the first min_tokens answer tokens
  uint32_t min_tokens = 0;
  std::vector<std::vector<int32_t>> bad_words;
  int32_t top_logprobs = -1;
  int32_t prompt_logprobs = -1;
  std::string request_id;
  uint32_t choice = 0;
  std::vector<int32_t> pages;
};

// One wanted row of logits.
struct LogitsRow {
  uint64_t sequence = 0;
  uint32_t position = 0;
  uint32_t mask = 0;  // 1 + index into the plan's token_masks, 0 = none
};

// What a draw may choose, besides penalties: it must outlive the SampleProblem that looks at it.
struct DrawRules {
  std::vector<uint8_t> allowed_both;  // where a sequence's mask and a draw's have to be joined
  std::span<const uint8_t> allowed;
  std::vector<LogitBias> changed_bias;  // where this draw bans tokens that others do not
  std::span<const LogitBias> bias;
};
// `answer`: the tokens before the draw. `mask`: of this draw, empty = none.
DrawRules draw_rules(const RankSequence& sequence, std::span<const int32_t> answer, std::span<const uint8_t> mask);

class SequenceTable {
 public:
  // Ends, starts and new pages of a plan. Throws std::logic_error on a plan that contradicts itself: a bug of the planner.
  void apply(const v1::StepPlan& plan);
  RankSequence& at(uint64_t sequence);
  const RankSequence& at(uint64_t sequence) const;
  bool contains(uint64_t sequence) const { return sequences_.count(sequence) > 0; }

  // Rows of `home` in plan order, without token values. `wanted` says which sequence and position each logits row is of.
  StepRows rows_of(const v1::StepPlan& plan, uint32_t home, int64_t page_size, std::vector<LogitsRow>& wanted) const;
  std::vector<v1::TraceRow> trace_rows(const v1::StepPlan& plan, uint32_t home) const;

 private:
  std::unordered_map<uint64_t, RankSequence> sequences_;
};

// Calls f(chunk, sequence) for each chunk of a plan whose sequence lives at `home`.
template <class Table, class F>
void for_chunks(Table& table, const v1::StepPlan& plan, uint32_t home, const F& f) {
  for (const v1::Chunk& chunk : plan.chunks()) {
    auto& sequence = table.at(chunk.sequence());
    if (sequence.home == home) f(chunk, sequence);
  }
}

}  // namespace invar
