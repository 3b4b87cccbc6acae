#include "runtime/engine/request.h"

#include <cassert>
#include <utility>

#include "runtime/model_config/message.h"

namespace invar::engine {

Request::Request(ValidRequest valid, Engine::Callback callback, const EngineContext& context)
    : callback(std::move(callback)), valid_(std::move(valid)), context_(context) {
  const v1::SamplingParams& sampling = valid_.sampling;
  const int64_t prompt = static_cast<int64_t>(valid_.prompt.size());
  sequences_.resize(valid_.choices);
  unfinished_ = valid_.choices;
  for (uint32_t i = 0; i < valid_.choices; ++i) {
    Sequence& s = sequences_[i];
    s.request = this;
    s.choice = valid_.first_choice + i;
    s.priority = valid_.priority;
    s.prompt_length = prompt;
    s.end = prompt + valid_.most_tokens - 1;
    s.sampling = &valid_.sampling;
    s.request_id = &valid_.id;
    s.late_token_ids = &valid_.late_token_ids;
    s.bad_words = &valid_.bad_words;
    if (valid_.grammar)
      s.constraint = std::make_unique<Constraint>(valid_.grammar, !context_.eos_token_ids.empty() && !sampling.ignore_eos(),
                                                  sampling.min_tokens());
    s.top_logprobs = sampling.has_logprobs() ? sampling.logprobs() : -1;
    s.prompt_logprobs = sampling.has_prompt_logprobs() && i == 0 ? sampling.prompt_logprobs() : -1;
    s.logits_from = s.prompt_logprobs >= 0 ? 0 : prompt - 1;
    s.tokens = valid_.prompt;
    s.tokens.insert(s.tokens.end(), valid_.forced.begin(), valid_.forced.end());
    outputs_.push_back(std::make_unique<ChoiceOutput>(context_, valid_, s.choice));
  }
  choices_held = valid_.choices > 1 && prompt_logprobs_missing();
}

void Request::admit(std::string id, uint64_t arrival) {
  valid_.id = std::move(id);
  for (Sequence& s : sequences_) s.arrival = arrival;
}

bool Request::prompt_logprobs_missing() const {
  return valid_.sampling.has_prompt_logprobs() && prompt_logprobs_.size() + 1 < valid_.prompt.size();
}

v1::ChoiceDelta* Request::delta_of(uint32_t choice) {
  for (v1::ChoiceDelta& d : *response_.mutable_choices())
    if (d.index() == choice) return &d;
  v1::ChoiceDelta* d = response_.add_choices();
  d->set_index(choice);
  return d;
}

bool Request::take(Sequence* s, const v1::TokenResult& result) {
  const uint32_t choice = s->choice;
  ChoiceOutput& output = *outputs_[choice - valid_.first_choice];
  const int64_t position = s->logits_from + 1;
  assert(position == result.position());
  if (!result.finite()) {
    output.fail(message("the logits at position ", position - 1, " hold NaN or infinity, or no token may be drawn"),
                delta_of(choice));
    --unfinished_;
    return true;
  }
  if (position < s->prompt_length) {
    prompt_logprobs_.push_back(
        token_logprobs(result.forced(), result.top(), valid_.sampling.prompt_logprobs(), context_.tokenizer.get()));
    return false;
  }
  int32_t token = result.token();
  if (valid_.forced.empty()) {
    s->tokens.push_back(token);
  } else {
    token = s->tokens[position];
    ++verified_;
    mismatches_ += result.token() != token;
  }
  bool complete = false;
  absl::Status next;
  if (s->constraint && valid_.forced.empty()) {
    const std::span<const int32_t> answer = s->answer_before(position + 1);
    complete = s->constraint->complete(answer);
    if (!complete) next = s->constraint->mask_after(answer).status();
  }
  v1::ChoiceDelta* delta = delta_of(choice);
  bool ended = output.append(token, result, complete, delta);
  if (!ended && !next.ok()) {
    output.fail(message(next.message()), delta);
    ended = true;
  }
  if (ended && s->constraint && !valid_.forced.empty())
    if (const std::optional<int64_t> at = s->constraint->violation(valid_.forced))
      delta->set_violation(static_cast<uint32_t>(*at));
  if (ended) --unfinished_;
  return ended;
}

const v1::GenerateResponse& Request::response() {
  v1::GenerateResponse& out = response_;
  out.set_request_id(valid_.id);
  if (!prompt_logprobs_sent_) {
    for (v1::TokenLogprobs& p : prompt_logprobs_) *out.add_prompt_logprobs() = std::move(p);
    prompt_logprobs_sent_ = true;
  }
  if (finished()) {
    v1::Usage* usage = out.mutable_usage();
    usage->set_prompt_tokens(static_cast<uint32_t>(valid_.prompt.size()));
    int64_t tokens = 0;
    for (const auto& o : outputs_) tokens += o->tokens();
    usage->set_completion_tokens(static_cast<uint32_t>(tokens));
    usage->set_cached_tokens(static_cast<uint32_t>(sequences_[0].cached_tokens));
    out.set_finished(true);
  }
  return out;
}

}  // namespace invar::engine
