#include "runtime/worker/sequence_table.h"

#include <algorithm>
#include <limits>
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
    s.controls = {.temperature = p.temperature(),
                  .top_k = p.top_k(),
                  .top_p = p.top_p(),
                  .min_p = p.min_p(),
                  .repetition_penalty = p.repetition_penalty(),
                  .presence_penalty = p.presence_penalty(),
                  .frequency_penalty = p.frequency_penalty(),
                  .seed = p.seed(),
                  .choice = start.choice()};
    for (const auto& [id, bias] : p.logit_bias()) s.bias.push_back({id, bias});
    std::sort(s.bias.begin(), s.bias.end(), [](const LogitBias& a, const LogitBias& b) { return a.token < b.token; });
    for (const int32_t id : p.allowed_token_ids()) {
      s.allowed.resize(std::max(s.allowed.size(), static_cast<size_t>(id) / 8 + 1));
      s.allowed[id / 8] |= static_cast<uint8_t>(1 << id % 8);
    }
    s.late_tokens.assign(start.late_token_ids().begin(), start.late_token_ids().end());
    s.min_tokens = p.min_tokens();
    for (const v1::TokenIds& word : start.bad_words()) s.bad_words.emplace_back(word.ids().begin(), word.ids().end());
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

RankSequence& SequenceTable::at(uint64_t sequence) { return const_cast<RankSequence&>(std::as_const(*this).at(sequence)); }

const RankSequence& SequenceTable::at(uint64_t sequence) const {
  const auto found = sequences_.find(sequence);
  if (found == sequences_.end())
    throw std::logic_error(absl::StrCat("a plan names sequence ", sequence, ", which is not running"));
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
        throw std::logic_error(
            absl::StrCat("step ", plan.step(), ": sequence ", chunk.sequence(), " has no page for position ", p));
      if (p >= chunk.logits_from()) {
        uint32_t mask = 0;
        if (!chunk.draw_masks().empty()) {
          const uint32_t draw = p - std::max(chunk.logits_from(), chunk.first_position());
          if (draw >= static_cast<uint32_t>(chunk.draw_masks_size()) ||
              chunk.draw_masks(static_cast<int>(draw)) > static_cast<uint32_t>(plan.token_masks_size()))
            throw std::logic_error(
                absl::StrCat("step ", plan.step(), ": sequence ", chunk.sequence(), " has no mask for its draw ", draw));
          mask = chunk.draw_masks(static_cast<int>(draw));
        }
        wanted.push_back({chunk.sequence(), p, mask});
        rows.logits.push_back(rows.size());
      }
      rows.positions.push_back(static_cast<int32_t>(p));
      rows.sequences.push_back(table);
      rows.slots.push_back(s.pages[page] * page_size + p % page_size);
    }
  });
  return rows;
}

DrawRules draw_rules(const RankSequence& s, std::span<const int32_t> answer, std::span<const uint8_t> mask) {
  DrawRules rules{.allowed = mask.empty() ? std::span<const uint8_t>(s.allowed) : mask, .bias = s.bias};
  if (!mask.empty() && !s.allowed.empty()) {
    rules.allowed_both.assign(mask.begin(), mask.begin() + static_cast<int64_t>(std::min(mask.size(), s.allowed.size())));
    for (size_t i = 0; i < rules.allowed_both.size(); ++i) rules.allowed_both[i] &= s.allowed[i];
    rules.allowed = rules.allowed_both;
  }
  const auto ban = [&](int32_t token) {
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    if (rules.changed_bias.empty()) rules.changed_bias = s.bias;
    const auto found =
        std::find_if(rules.changed_bias.begin(), rules.changed_bias.end(), [&](const LogitBias& b) { return b.token == token; });
    if (found == rules.changed_bias.end())
      rules.changed_bias.push_back({token, kNever});
    else
      found->bias = kNever;
    rules.bias = rules.changed_bias;
  };
  // Where a mask says what may end an answer, it has looked at min_tokens already.
  if (answer.size() < s.min_tokens && mask.empty())
    for (const int32_t token : s.late_tokens) ban(token);
  for (const std::vector<int32_t>& word : s.bad_words) {
    const size_t before = word.size() - 1;
    if (answer.size() >= before && std::equal(word.begin(), word.end() - 1, answer.end() - static_cast<int64_t>(before)))
      ban(word.back());
  }
  return rules;
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
