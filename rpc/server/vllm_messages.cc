#include "rpc/server/vllm_messages.h"

#include <algorithm>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace invar::rpc {
namespace {

namespace vllm = ::vllm::grpc::engine;

template <class... Parts>
absl::Status invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

// What another engine could do and this one does not.
absl::Status check_refused(const vllm::GenerateRequest& request) {
  const std::pair<const char*, bool> fields[] = {
      {"mm_inputs", request.has_mm_inputs()},
      {"extra_mm_inputs", request.extra_mm_inputs_size() > 0},
      {"media_refs", request.has_media_refs()},
      {"kv_transfer_params", request.has_kv_transfer_params()},
      {"kv_transfer_params_json", request.has_kv_transfer_params_json()},
      {"sampling_params.truncate_prompt_tokens", request.sampling_params().has_truncate_prompt_tokens()},
      {"sampling_params.structural_tag", request.sampling_params().constraint_case() == vllm::SamplingParams::kStructuralTag},
  };
  for (const auto& [field, given] : fields)
    if (given) return absl::UnimplementedError(absl::StrCat(field, " is not supported"));
  if (request.has_data_parallel_rank() && request.data_parallel_rank() != 0)
    return invalid("data_parallel_rank = ", request.data_parallel_rank(),
                   ": there is rank 0 only; the server itself spreads requests over its replicas");
  return absl::OkStatus();
}

absl::Status add_ids(const char* field, const google::protobuf::RepeatedField<uint32_t>& given,
                     google::protobuf::RepeatedField<int32_t>& ids) {
  ids.Reserve(given.size());
  for (int i = 0; i < given.size(); ++i) {
    if (given[i] > static_cast<uint32_t>(std::numeric_limits<int32_t>::max()))
      return invalid(field, "[", i, "] = ", given[i], " is not a token id");
    ids.Add(static_cast<int32_t>(given[i]));
  }
  return absl::OkStatus();
}

absl::Status set_constraint(const vllm::SamplingParams& given, v1::SamplingParams& sampling) {
  switch (given.constraint_case()) {
    case vllm::SamplingParams::kJsonSchema:
      sampling.set_guided_json(given.json_schema());
      break;
    case vllm::SamplingParams::kRegex:
      sampling.set_guided_regex(given.regex());
      break;
    case vllm::SamplingParams::kGrammar:
      sampling.set_guided_grammar(given.grammar());
      break;
    case vllm::SamplingParams::kJsonObject:
      if (!given.json_object()) return invalid("sampling_params.json_object = false is no constraint; leave it out");
      sampling.set_guided_json_object(true);
      break;
    case vllm::SamplingParams::kChoice:
      if (given.choice().choices().empty()) return invalid("sampling_params.choice.choices is empty");
      *sampling.mutable_guided_choice() = given.choice().choices();
      break;
    case vllm::SamplingParams::kStructuralTag:  // refused before
    case vllm::SamplingParams::CONSTRAINT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

absl::Status set_sampling(const vllm::SamplingParams& given, int64_t max_model_len, v1::SamplingParams& sampling) {
  if (given.top_k() > static_cast<uint32_t>(std::numeric_limits<int32_t>::max()))
    return invalid("top_k = ", given.top_k(), " is more than a vocabulary has; 0 = all");
  // Everything is set: what the request leaves out is this interface's default, not the model's.
  sampling.set_temperature(given.has_temperature() ? given.temperature() : 1.0f);
  sampling.set_top_p(given.top_p() == 0 ? 1.0f : given.top_p());
  sampling.set_top_k(static_cast<int32_t>(given.top_k()));
  sampling.set_min_p(given.min_p());
  sampling.set_frequency_penalty(given.frequency_penalty());
  sampling.set_presence_penalty(given.presence_penalty());
  sampling.set_repetition_penalty(given.repetition_penalty() == 0 ? 1.0f : given.repetition_penalty());
  sampling.set_max_tokens(given.has_max_tokens() ? given.max_tokens() : static_cast<uint32_t>(max_model_len));
  sampling.set_min_tokens(given.min_tokens());
  *sampling.mutable_stop() = given.stop();
  if (absl::Status s = add_ids("stop_token_ids", given.stop_token_ids(), *sampling.mutable_stop_token_ids()); !s.ok()) return s;
  sampling.set_skip_special_tokens(given.skip_special_tokens());
  sampling.set_ignore_eos(given.ignore_eos());
  sampling.set_n(given.n() == 0 ? 1 : given.n());
  if (given.has_logprobs()) sampling.set_logprobs(given.logprobs());
  if (given.has_prompt_logprobs()) sampling.set_prompt_logprobs(given.prompt_logprobs());
  if (given.has_seed() && given.seed() != -1) {
    if (given.seed() < -1) return invalid("seed = ", given.seed(), " must not be negative (-1 = none is given)");
    sampling.set_seed(static_cast<uint64_t>(given.seed()));
  }
  sampling.set_include_stop_str_in_output(given.include_stop_str_in_output());
  for (const auto& [id, bias] : given.logit_bias()) (*sampling.mutable_logit_bias())[id] = bias;
  return set_constraint(given, sampling);
}

const char* finish_name(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_ERROR:
      return "error";
    case v1::FINISH_REASON_STOP:
      return "stop";
    default:
      return "abort";
  }
}

void add_top(const v1::TokenLogprobs& logprobs, vllm::TopLogProbs& out) {
  for (const v1::Logprob& p : logprobs.top()) {
    out.add_values(p.logprob());
    out.add_token_ids(static_cast<uint32_t>(p.token_id()));
  }
}

void add_logprobs(const v1::ChoiceDelta& delta, bool top, vllm::OutputLogProbs& out) {
  for (const v1::TokenLogprobs& p : delta.logprobs()) {
    out.add_token_logprobs(p.chosen().logprob());
    out.add_token_ids(static_cast<uint32_t>(p.chosen().token_id()));
    if (top) add_top(p, *out.add_top_logprobs());
  }
}

}  // namespace

absl::StatusOr<v1::GenerateRequest> from_vllm(const vllm::GenerateRequest& request, const Engine& engine) {
  if (absl::Status s = check_refused(request); !s.ok()) return s;
  v1::GenerateRequest out;
  out.set_request_id(request.request_id());
  if (absl::Status s = set_sampling(request.sampling_params(), engine.options().max_model_len, *out.mutable_sampling_params());
      !s.ok())
    return s;
  auto& ids = *out.mutable_prompt_token_ids()->mutable_ids();
  switch (request.input_case()) {
    case vllm::GenerateRequest::kTokenized:
      if (request.tokenized().input_ids().empty()) return invalid("tokenized.input_ids is empty");
      if (absl::Status s = add_ids("tokenized.input_ids", request.tokenized().input_ids(), ids); !s.ok()) return s;
      break;
    case vllm::GenerateRequest::kText: {
      const std::shared_ptr<const Tokenizer> tokenizer = engine.tokenizer();
      if (tokenizer == nullptr) return invalid("text: it needs a tokenizer and this model has none; use tokenized.input_ids");
      const absl::StatusOr<std::vector<int32_t>> tokens = tokenizer->encode(request.text(), /*add_special_tokens=*/true);
      if (!tokens.ok()) return absl::Status(tokens.status().code(), absl::StrCat("text: ", tokens.status().message()));
      if (tokens->empty()) return invalid("text = \"", request.text(), "\" has no tokens");
      ids.Add(tokens->begin(), tokens->end());
      break;
    }
    case vllm::GenerateRequest::INPUT_NOT_SET:
      return invalid("input: neither tokenized nor text was given");
  }
  return out;
}

VllmAnswer::VllmAnswer(bool stream, const v1::GenerateRequest& request)
    : stream_(stream),
      sampling_(request.sampling_params()),
      prompt_(request.prompt_token_ids().ids().begin(), request.prompt_token_ids().ids().end()) {}

void VllmAnswer::encode(v1::GenerateResponse response, std::deque<vllm::GenerateResponse>& out) {
  if (response.prompt_logprobs_size() > 0) {
    vllm::InputLogProbs& p = prompt_logprobs_.emplace();
    const bool top = sampling_.prompt_logprobs() > 0;
    p.add_token_logprobs();  // nothing comes before the first
    p.add_token_ids(prompt_.front());
    if (top) p.add_top_logprobs();
    for (const v1::TokenLogprobs& token : response.prompt_logprobs()) {
      p.add_token_logprobs()->set_value(token.chosen().logprob());
      p.add_token_ids(static_cast<uint32_t>(token.chosen().token_id()));
      if (top) add_top(token, *p.add_top_logprobs());
    }
  }
  if (response.has_usage()) cached_tokens_ = response.usage().cached_tokens();
  for (const v1::ChoiceDelta& delta : response.choices()) {
    if (choices_.size() <= delta.index()) choices_.resize(delta.index() + 1);
    Choice& choice = choices_[delta.index()];
    choice.ids.insert(choice.ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    if (stream_) {
      if (!delta.token_ids().empty()) add_chunk(delta.index(), delta, out);
    } else {
      add_logprobs(delta, sampling_.logprobs() > 0, choice.logprobs);
    }
    if (delta.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      choice.finish = delta.finish_reason();
      choice.stop_reason = delta.stop_reason();
    }
  }
  if (response.finished())
    for (uint32_t i = 0; i < choices_.size(); ++i) add_complete(i, out);
}

absl::Status VllmAnswer::end(absl::Status status, std::deque<vllm::GenerateResponse>& out) {
  if (!absl::IsCancelled(status)) return status;
  choices_.resize(std::max<size_t>(sampling_.n(), choices_.size()));
  for (uint32_t i = 0; i < choices_.size(); ++i) add_complete(i, out);
  return absl::OkStatus();
}

void VllmAnswer::add_chunk(uint32_t index, const v1::ChoiceDelta& delta, std::deque<vllm::GenerateResponse>& out) {
  vllm::GenerateStreamChunk& chunk = *out.emplace_back().mutable_chunk();
  chunk.mutable_token_ids()->Add(delta.token_ids().begin(), delta.token_ids().end());
  chunk.set_prompt_tokens(static_cast<uint32_t>(prompt_.size()));
  chunk.set_completion_tokens(static_cast<uint32_t>(delta.token_ids_size()));
  chunk.set_cached_tokens(cached_tokens_);
  if (delta.logprobs_size() > 0) add_logprobs(delta, sampling_.logprobs() > 0, *chunk.mutable_output_logprobs());
  if (!choices_[index].begun && prompt_logprobs_.has_value()) *chunk.mutable_input_logprobs() = *prompt_logprobs_;
  choices_[index].begun = true;
  chunk.set_index(index);
}

void VllmAnswer::add_complete(uint32_t index, std::deque<vllm::GenerateResponse>& out) {
  Choice& choice = choices_[index];
  vllm::GenerateComplete& complete = *out.emplace_back().mutable_complete();
  complete.mutable_output_ids()->Add(choice.ids.begin(), choice.ids.end());
  complete.set_finish_reason(finish_name(choice.finish));
  complete.set_prompt_tokens(static_cast<uint32_t>(prompt_.size()));
  complete.set_completion_tokens(static_cast<uint32_t>(choice.ids.size()));
  complete.set_cached_tokens(cached_tokens_);
  complete.set_index(index);
  if (choice.logprobs.token_ids_size() > 0) *complete.mutable_output_logprobs() = std::move(choice.logprobs);
  if (!stream_ && prompt_logprobs_.has_value()) *complete.mutable_input_logprobs() = *prompt_logprobs_;
  if (choice.finish != v1::FINISH_REASON_STOP || choice.stop_reason.empty()) return;
  // The engine's reason is a text: an id that is a stop id and ended the answer, else a stop string.
  const auto& stops = sampling_.stop_token_ids();
  int32_t id = 0;
  if (absl::SimpleAtoi(choice.stop_reason, &id) && !choice.ids.empty() && choice.ids.back() == static_cast<uint32_t>(id) &&
      std::find(stops.begin(), stops.end(), id) != stops.end()) {
    complete.set_matched_token_id(static_cast<uint32_t>(id));
  } else {
    complete.set_matched_stop_str(choice.stop_reason);
  }
}

}  // namespace invar::rpc
