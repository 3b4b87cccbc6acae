#include "runtime/worker/sequence_table.h"

#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"

namespace invar {

void SequenceTable::apply(const v1::StepPlan& plan) {
  for (const uint64_t ended : plan.ended())
    if (sequences_.erase(ended) == 0)
      throw std::logic_error(absl::StrCat("step ", plan.step(), " ends sequence ", ended, ", which is not running"));
  for (const v1::SequenceStart& start : plan.started()) {
    RankSequence s;
    s.home = start.home();
    s.tokens.assign(start.tokens().begin(), start.tokens().end());
    s.prompt_length = start.prompt_length();
    const v1::SamplingParams& p = start.sampling();
    s.controls = {.temperature = p.temperature(), .top_k = p.top_k(), .top_p = p.top_p(), .min_p = p.min_p(),
                  .repetition_penalty = p.repetition_penalty(), .presence_penalty = p.presence_penalty(),
                  .frequency_penalty = p.frequency_penalty(), .seed = p.seed(), .choice = start.choice()};
    s.top_logprobs = start.top_logprobs();
    s.prompt_logprobs = start.prompt_logprobs();
    s.request_id = start.request_id();
    s.choice = start.choice();
    s.pages.assign(start.pages().begin(), start.pages().end());
    if (!sequences_.emplace(start.sequence(), std::move(s)).second)
      throw std::logic_error(absl::StrCat("step ", plan.step(), " starts sequence ", start.sequence(), " twice"));
  }
  for (const v1::Chunk& chunk : plan.chunks()) {
    RankSequence& s = at(chunk.sequence());
    s.pages.insert(s.pages.end(), chunk.new_pages().begin(), chunk.new_pages().end());
  }
}

RankSequence& SequenceTable::at(uint64_t sequence) {
  return const_cast<RankSequence&>(std::as_const(*this).at(sequence));
}

const RankSequence& SequenceTable::at(uint64_t sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end()) throw std::logic_error(absl::StrCat("a plan names sequence ", sequence, ", which is not running"));
  return found->second;
}

StepRows SequenceTable::rows_of(const v1::StepPlan& plan, uint32_t home, int64_t page_size,
                                std::vector<LogitsRow>& wanted) const {
  StepRows rows;
  for_chunks(*this, plan, home, [&](const v1::Chunk& chunk, const RankSequence& s) {
    const int32_t table = static_cast<int32_t>(rows.page_tables.size());
    rows.page_tables.emplace_back(s.pages);
    for (uint32_t p = chunk.first_position(); p < chunk.first_position() + chunk.count(); ++p) {
      const size_t page = p / page_size;
      if (page >= s.pages.size())
        throw std::logic_error(absl::StrCat("step ", plan.step(), ": sequence ", chunk.sequence(), " has no page for position ", p));
      if (p >= chunk.logits_from()) {
        wanted.push_back({chunk.sequence(), p});
        rows.logits.push_back(rows.size());
      }
      rows.positions.push_back(static_cast<int32_t>(p));
      rows.sequences.push_back(table);
      rows.slots.push_back(s.pages[page] * page_size + p % page_size);
    }
  });
  return rows;
}

std::vector<v1::TraceRow> SequenceTable::trace_rows(const v1::StepPlan& plan, uint32_t home) const {
  std::vector<v1::TraceRow> rows;
  for_chunks(*this, plan, home, [&](const v1::Chunk& chunk, const RankSequence& s) {
    for (uint32_t p = chunk.first_position(); p < chunk.first_position() + chunk.count(); ++p) {
      v1::TraceRow& row = rows.emplace_back();
      row.set_request(s.request_id);
      row.set_choice(s.choice);
      row.set_position(p);
    }
  });
  return rows;
}

}  // namespace invar
