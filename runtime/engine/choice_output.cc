#include "runtime/engine/choice_output.h"

#include <algorithm>

#include "kernels/numerics.h"
#include "runtime/model_config/message.h"
#include "runtime/receipt/receipt.h"

namespace invar::engine {
namespace {

v1::Logprob complete(v1::Logprob p, const Tokenizer* tokenizer) {
  p.set_logprob_bits(numerics::float_bits(p.logprob()));
  if (tokenizer) {
    const int32_t id = p.token_id();
    p.set_text(tokenizer->decode({&id, 1}, /*skip_special_tokens=*/false));
  }
  return p;
}

}  // namespace

v1::TokenLogprobs token_logprobs(const v1::Logprob& chosen, const google::protobuf::RepeatedPtrField<v1::Logprob>& top,
                                 int32_t most, const Tokenizer* tokenizer) {
  v1::TokenLogprobs out;
  *out.mutable_chosen() = complete(chosen, tokenizer);
  for (int i = 0; i < std::min(top.size(), most); ++i) *out.add_top() = complete(top[i], tokenizer);
  return out;
}

ChoiceOutput::ChoiceOutput(const EngineContext& context, const ValidRequest& request, uint32_t choice)
    : context_(context),
      request_(request),
      choice_(choice),
      // Forced tokens are all taken: what a stop string would have cut off still has to be verified.
      stops_(request.forced.empty() ? std::vector<std::string>(request.sampling.stop().begin(), request.sampling.stop().end())
                                    : std::vector<std::string>(),
             request.sampling.include_stop_str_in_output()),
      chain_(context.numerics_id, context.model_digest, request.prompt, request.sampling, choice) {
  if (context.tokenizer) decoder_.emplace(context.tokenizer, request.sampling.skip_special_tokens());
}

bool ChoiceOutput::is_stop_id(int32_t token, std::string* reason) const {
  const auto& stops = request_.sampling.stop_token_ids();
  if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
    *reason = message(token);
    return true;
  }
  return !request_.sampling.ignore_eos() &&
         std::find(context_.eos_token_ids.begin(), context_.eos_token_ids.end(), token) != context_.eos_token_ids.end();
}

bool ChoiceOutput::append(int32_t token, const v1::TokenResult& result, bool complete, v1::ChoiceDelta* delta) {
  tokens_.push_back(token);
  hashes_.push_back(result.logits_hash());
  chain_.append(token, result.logits_hash());
  delta->add_token_ids(token);
  delta->add_logits_hashes(result.logits_hash());
  const bool verification = !request_.forced.empty();
  if (verification) delta->add_draws(result.token());
  if (request_.sampling.has_logprobs())
    *delta->add_logprobs() = token_logprobs(verification ? result.forced() : result.chosen(), result.top(),
                                            request_.sampling.logprobs(), context_.tokenizer.get());

  const bool full = tokens() >= request_.most_tokens;
  const bool may_stop = tokens() > request_.sampling.min_tokens();
  std::string stop_reason;
  const bool stop_id = (may_stop || complete) && (!verification || full) && is_stop_id(token, &stop_reason);
  const bool over = stop_id || full || complete;
  if (decoder_) {
    std::string piece;
    // The token that ends an answer is no part of its text.
    if (!stop_id || request_.sampling.include_stop_str_in_output()) piece = decoder_->push(token);
    if (over) piece += decoder_->finish();
    StopStrings::Piece shown = stops_.push(piece, may_stop);
    delta->mutable_text()->append(shown.text);
    if (shown.stop >= 0) {
      close(v1::FINISH_REASON_STOP, request_.sampling.stop(shown.stop), delta);
      return true;
    }
    if (over) delta->mutable_text()->append(stops_.finish());
  }
  if (over) close(stop_id || complete ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH, stop_reason, delta);
  return over;
}

void ChoiceOutput::fail(std::string_view reason, v1::ChoiceDelta* delta) {
  if (decoder_) delta->mutable_text()->append(stops_.push(decoder_->finish(), false).text + stops_.finish());
  close(v1::FINISH_REASON_ERROR, reason, delta);
}

void ChoiceOutput::close(v1::FinishReason reason, std::string_view stop_reason, v1::ChoiceDelta* delta) {
  delta->set_finish_reason(reason);
  delta->set_stop_reason(std::string(stop_reason));
  delta->set_response_digest(chain_.head());
  if (request_.return_receipt)
    *delta->mutable_receipt() = make_receipt(context_.numerics_id, context_.model_digest, request_.prompt, request_.sampling,
                                             choice_, tokens_, hashes_, delta->response_digest());
}

}  // namespace invar::engine
