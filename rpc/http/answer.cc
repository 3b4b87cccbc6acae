#include "rpc/http/answer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "runtime/receipt/receipt.h"

namespace invar::http {

std::string fingerprint_of(const AnswerFacts& facts) {
  return absl::StrCat(facts.numerics_id, "+", facts.model_digest.substr(0, 16));
}

double shown_logprob(const v1::Logprob& logprob) {
  return std::isfinite(logprob.logprob()) ? static_cast<double>(logprob.logprob()) : -9999.0;
}

Json bytes_of(const v1::Logprob& logprob, const Tokenizer* tokenizer) {
  Json bytes = Json::array();
  for (const char c : tokenizer != nullptr ? tokenizer->token_bytes(logprob.token_id()) : logprob.text())
    bytes.push_back(static_cast<uint8_t>(c));
  return bytes;
}

const char* finish_name(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_ABORT:
      return "abort";
    case v1::FINISH_REASON_ERROR:
      return "error";
    default:
      return nullptr;
  }
}

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

void add_event(std::string& out, const std::string& data) { absl::StrAppend(&out, "data: ", data, "\n\n"); }

Json prompt_logprobs_of(const v1::GenerateResponse& response) {
  Json out = Json::array({nullptr});
  for (const v1::TokenLogprobs& token : response.prompt_logprobs()) {
    Json entry = Json::object();
    const auto add = [&](const v1::Logprob& p) {
      entry[absl::StrCat(p.token_id())] = {{"logprob", shown_logprob(p)}, {"rank", p.rank()}, {"decoded_token", p.text()}};
    };
    add(token.chosen());
    for (const v1::Logprob& p : token.top()) add(p);
    out.push_back(std::move(entry));
  }
  return out;
}

Answer::Answer(AnswerFacts facts, Ask ask)
    : facts_(std::move(facts)),
      ask_(std::move(ask)),
      fingerprint_(fingerprint_of(facts_)),
      choices_(ask_.requests.size() * ask_.n) {
  for (const v1::GenerateRequest& r : ask_.requests) prompt_tokens_ += r.prompt_token_ids().ids_size();
}

Answer::Choice& Answer::note(uint32_t prompt, const v1::ChoiceDelta& delta) {
  Choice& choice = choices_[index_of(prompt, delta)];
  choice.tokens += delta.token_ids_size();
  if (delta.finish_reason() != v1::FINISH_REASON_UNSPECIFIED && !choice.finished) {
    choice.finished = true;
    ++finished_;
    choice.digest = delta.response_digest();
    choice.has_receipt = delta.has_receipt();
    choice.receipt = delta.receipt();
  }
  return choice;
}

void Answer::note_usage(const v1::GenerateResponse& response) {
  if (response.has_usage()) cached_tokens_ += response.usage().cached_tokens();
}

Json Answer::usage() const {
  int64_t tokens = 0;
  for (const Choice& choice : choices_) tokens += shown_tokens(choice);
  return {{"prompt_tokens", prompt_tokens_},
          {"total_tokens", prompt_tokens_ + tokens},
          {"completion_tokens", tokens},
          {"prompt_tokens_details", {{"cached_tokens", cached_tokens_}}}};
}

Json Answer::usage_so_far(uint32_t prompt, const Choice& choice) const {
  const int64_t prompt_tokens = ask_.requests[prompt].prompt_token_ids().ids_size();
  return {{"prompt_tokens", prompt_tokens},
          {"total_tokens", prompt_tokens + shown_tokens(choice)},
          {"completion_tokens", shown_tokens(choice)}};
}

Json Answer::invar(uint32_t first, uint32_t count) const {
  Json out{{"numerics_id", facts_.numerics_id}, {"model_digest", facts_.model_digest}};
  if (ask_.no_answer) return out;
  const auto add = [&](const Choice& choice, Json& to) {
    to["response_digest"] = choice.digest;
    if (choice.has_receipt) to["receipt"] = Json::parse(receipt_to_json(choice.receipt), nullptr, false);
  };
  if (count == 1) {
    add(choices_[first], out);
    return out;
  }
  Json choices = Json::array();
  for (uint32_t i = first; i < first + count; ++i) {
    Json one{{"index", i - first}};
    add(choices_[i], one);
    choices.push_back(std::move(one));
  }
  out["choices"] = std::move(choices);
  return out;
}

Json Answer::stop_reason(uint32_t prompt, const v1::ChoiceDelta& delta) const {
  const std::string& reason = delta.stop_reason();
  if (reason.empty()) return nullptr;
  const v1::SamplingParams& s = ask_.requests[prompt].sampling_params();
  int32_t id = 0;
  const bool text = std::find(s.stop().begin(), s.stop().end(), reason) != s.stop().end();
  if (!text && absl::SimpleAtoi(reason, &id) &&
      std::find(s.stop_token_ids().begin(), s.stop_token_ids().end(), id) != s.stop_token_ids().end())
    return id;
  return reason;
}

std::string Answer::token_text(const v1::Logprob& logprob) const {
  return ask_.tokens_as_ids ? absl::StrCat("token_id:", logprob.token_id()) : logprob.text();
}

void Answer::last_events(std::string& out) { add_event(out, "[DONE]"); }

std::string Answer::summary() const {
  int64_t tokens = 0;
  for (const Choice& choice : choices_) tokens += choice.tokens;
  std::string out = absl::StrCat("prompt_tokens=", prompt_tokens_, " completion_tokens=", tokens);
  if (choices_.size() == 1 && !choices_[0].digest.empty()) absl::StrAppend(&out, " digest=", choices_[0].digest);
  if (choices_.size() > 1) absl::StrAppend(&out, " choices=", choices_.size());
  return out;
}

}  // namespace invar::http
