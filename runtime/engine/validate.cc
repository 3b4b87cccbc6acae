#include "runtime/engine/validate.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "runtime/engine/constraint.h"
#include "runtime/model_config/message.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::engine {
namespace {

template <class... Parts>
absl::Status invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(message(parts...));
}

template <class T>
T first_of(bool given, T value, const std::optional<T>& model, T otherwise) {
  if (given) return value;
  return model.value_or(otherwise);
}

absl::Status check_utf8(std::string_view field, std::string_view text) {
  const size_t at = tokenizer::first_invalid_utf8(text);
  if (at == std::string_view::npos) return absl::OkStatus();
  return invalid(field, ": byte ", at, " (0x", absl::Hex(static_cast<uint8_t>(text[at]), absl::kZeroPad2),
                 ") is not valid UTF-8");
}

absl::Status check_ids(std::string_view field, const google::protobuf::RepeatedField<int32_t>& ids, int64_t vocab_size) {
  for (int i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= vocab_size)
      return invalid(field, "[", i, "] = ", ids[i], " is not a token id; the vocabulary has ", vocab_size, " entries");
  return absl::OkStatus();
}

absl::Status check_range(std::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return invalid(field, " = ", value, " must be in [", low, ", ", high, "]");
}

absl::Status check_logprobs(std::string_view field, int32_t value) {
  if (value >= 0 && value <= kMaxLogprobs) return absl::OkStatus();
  return invalid(field, " = ", value, " must be in [0, ", kMaxLogprobs, "]; leave it out for none");
}

absl::Status check_drawable(const v1::SamplingParams& s, const ValidationLimits& limits) {
  for (const auto& [id, bias] : s.logit_bias()) {
    if (id < 0 || id >= limits.vocab_size)
      return invalid("logit_bias: ", id, " is not a token id; the vocabulary has ", limits.vocab_size, " entries");
    if (absl::Status r = check_range(message("logit_bias[", id, "]"), bias, -100, 100); !r.ok()) return r;
  }
  if (absl::Status r = check_ids("allowed_token_ids", s.allowed_token_ids(), limits.vocab_size); !r.ok()) return r;
  if (s.bad_words_size() > kMaxBadWords)
    return invalid("bad_words has ", s.bad_words_size(), " words, at most ", kMaxBadWords, " are allowed");
  for (int i = 0; i < s.bad_words_size(); ++i) {
    if (s.bad_words(i).empty()) return invalid("bad_words[", i, "] = \"\" must not be empty");
    if (absl::Status r = check_utf8(message("bad_words[", i, "]"), s.bad_words(i)); !r.ok()) return r;
  }
  if (s.bad_words_size() > 0 && !limits.tokenizer) return invalid("bad_words: words need a tokenizer and this model has none");
  return absl::OkStatus();
}

absl::Status check_guided(const v1::SamplingParams& s, const ValidationLimits& limits) {
  const std::pair<const char*, bool> all[] = {
      {"guided_json", s.has_guided_json()},       {"guided_json_object", s.guided_json_object()},
      {"guided_regex", s.has_guided_regex()},     {"guided_choice", s.guided_choice_size() > 0},
      {"guided_grammar", s.has_guided_grammar()}, {"allowed_token_ids", s.allowed_token_ids_size() > 0}};
  const char* given = nullptr;
  for (const auto& [field, is_given] : all) {
    if (!is_given) continue;
    if (given) return invalid(given, " and ", field, " exclude each other");
    given = field;
  }
  if (given && std::string_view(given).starts_with("guided") && !limits.grammars)
    return invalid(given, " needs a tokenizer and this model has none");
  return absl::OkStatus();
}

// The compiled constraint, if there is one. Its first mask is made here: by the caller's thread, so that the engine's finds it.
absl::StatusOr<std::shared_ptr<grammar::Grammar>> compile_guided(const v1::SamplingParams& s, const ValidationLimits& limits) {
  grammar::Specification specification;
  std::string field;
  if (s.has_guided_json()) {
    field = "guided_json";
    specification = {grammar::Specification::Kind::kJsonSchema, s.guided_json(), {}};
  } else if (s.guided_json_object()) {
    field = "guided_json_object";
  } else if (s.has_guided_regex()) {
    field = "guided_regex";
    specification = {grammar::Specification::Kind::kRegex, s.guided_regex(), {}};
  } else if (s.guided_choice_size() > 0) {
    field = "guided_choice";
    specification = {grammar::Specification::Kind::kChoice, "", {s.guided_choice().begin(), s.guided_choice().end()}};
  } else if (s.has_guided_grammar()) {
    field = "guided_grammar";
    specification = {grammar::Specification::Kind::kEbnf, s.guided_grammar(), {}};
  } else {
    return nullptr;
  }
  const auto named = [&](const absl::Status& status) {
    return absl::Status(status.code(), message(field, ": ", status.message()));
  };
  absl::StatusOr<std::shared_ptr<grammar::Grammar>> made = limits.grammars->get(specification);
  if (!made.ok()) return named(made.status());
  const bool ends = !limits.eos_token_ids.empty() && !s.ignore_eos();
  const auto first = Constraint(*made, ends, s.min_tokens()).mask_after({});
  if (!first.ok()) return invalid(field, ": ", first.status().message());
  return made;
}

// As vLLM: each word as it stands and behind a space.
absl::StatusOr<std::vector<std::vector<int32_t>>> bad_word_tokens(const v1::SamplingParams& s, const Tokenizer* tokenizer) {
  std::vector<std::vector<int32_t>> out;
  for (int i = 0; i < s.bad_words_size(); ++i) {
    std::string_view word = s.bad_words(i);
    word.remove_prefix(std::min(word.find_first_not_of(' '), word.size()));
    for (const char* before : {"", " "}) {
      auto ids = tokenizer->encode(message(before, word), /*add_special_tokens=*/false);
      if (!ids.ok()) return absl::Status(ids.status().code(), message("bad_words[", i, "]: ", ids.status().message()));
      if (!ids->empty() && std::find(out.begin(), out.end(), *ids) == out.end()) out.push_back(*std::move(ids));
    }
  }
  return out;
}

absl::Status check_sampling(const v1::SamplingParams& s, const ValidationLimits& limits) {
  if (s.n() < 1 || s.n() > kMaxChoices) return invalid("n = ", s.n(), " must be in [1, ", kMaxChoices, "]");
  if (!(s.temperature() >= 0) || std::isinf(s.temperature()))
    return invalid("temperature = ", s.temperature(), " must be a number of at least 0");
  if (s.top_k() < -1) return invalid("top_k = ", s.top_k(), " must be positive, or 0 or -1 for all");
  if (!(s.top_p() > 0 && s.top_p() <= 1)) return invalid("top_p = ", s.top_p(), " must be in (0, 1]");
  if (absl::Status r = check_range("min_p", s.min_p(), 0, 1); !r.ok()) return r;
  if (!(s.repetition_penalty() > 0) || std::isinf(s.repetition_penalty()))
    return invalid("repetition_penalty = ", s.repetition_penalty(), " must be a number above 0");
  if (absl::Status r = check_range("presence_penalty", s.presence_penalty(), -2, 2); !r.ok()) return r;
  if (absl::Status r = check_range("frequency_penalty", s.frequency_penalty(), -2, 2); !r.ok()) return r;
  if (s.max_tokens() < 1) return invalid("max_tokens = 0 must be at least 1");
  if (s.min_tokens() > s.max_tokens())
    return invalid("min_tokens = ", s.min_tokens(), " must not be above max_tokens = ", s.max_tokens());
  if (s.has_logprobs())
    if (absl::Status r = check_logprobs("logprobs", s.logprobs()); !r.ok()) return r;
  if (s.has_prompt_logprobs())
    if (absl::Status r = check_logprobs("prompt_logprobs", s.prompt_logprobs()); !r.ok()) return r;
  if (s.stop_size() > kMaxStopStrings)
    return invalid("stop has ", s.stop_size(), " strings, at most ", kMaxStopStrings, " are allowed");
  for (int i = 0; i < s.stop_size(); ++i) {
    if (s.stop(i).empty()) return invalid("stop[", i, "] = \"\" must not be empty");
    if (absl::Status r = check_utf8(message("stop[", i, "]"), s.stop(i)); !r.ok()) return r;
  }
  if (s.stop_size() > 0 && !limits.tokenizer)
    return invalid("stop[0] = \"", s.stop(0), "\": stop strings need a tokenizer and this model has none; use stop_token_ids");
  if (absl::Status r = check_ids("stop_token_ids", s.stop_token_ids(), limits.vocab_size); !r.ok()) return r;
  if (absl::Status r = check_drawable(s, limits); !r.ok()) return r;
  return check_guided(s, limits);
}

absl::StatusOr<std::vector<int32_t>> prompt_ids(const v1::GenerateRequest& request, const ValidationLimits& limits) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kPromptTokenIds: {
      const auto& ids = request.prompt_token_ids().ids();
      if (ids.size() >= limits.max_model_len)
        return invalid("prompt_token_ids has ", ids.size(),
                       " tokens; with one answer token at least it must fit max_model_len = ", limits.max_model_len);
      if (absl::Status r = check_ids("prompt_token_ids", ids, limits.vocab_size); !r.ok()) return r;
      if (ids.empty()) return invalid("prompt_token_ids is empty");
      return std::vector<int32_t>(ids.begin(), ids.end());
    }
    case v1::GenerateRequest::kPrompt: {
      if (!limits.tokenizer) return invalid("prompt: text needs a tokenizer and this model has none; use prompt_token_ids");
      if (absl::Status r = check_utf8("prompt", request.prompt()); !r.ok()) return r;
      absl::StatusOr<std::vector<int32_t>> ids = limits.tokenizer->encode(request.prompt(), /*add_special_tokens=*/true);
      if (!ids.ok()) return absl::Status(ids.status().code(), message("prompt: ", ids.status().message()));
      if (ids->empty()) return invalid("prompt = \"", request.prompt(), "\" has no tokens");
      if (static_cast<int64_t>(ids->size()) >= limits.max_model_len)
        return invalid("prompt has ", ids->size(),
                       " tokens; with one answer token at least it must fit max_model_len = ", limits.max_model_len);
      // A tokenizer may know tokens that the model has no embedding for.
      for (size_t i = 0; i < ids->size(); ++i)
        if ((*ids)[i] < 0 || (*ids)[i] >= limits.vocab_size)
          return invalid("prompt: its token ", i, " is ", (*ids)[i], ", but the model's vocabulary has ", limits.vocab_size,
                         " entries");
      return ids;
    }
    default:
      return invalid("prompt: neither text (prompt) nor token ids (prompt_token_ids) were given");
  }
}

}  // namespace

v1::SamplingParams effective_sampling(const v1::SamplingParams& given, const GenerationDefaults& defaults, uint64_t seed) {
  v1::SamplingParams s = given;
  s.set_n(given.has_n() ? given.n() : 1);
  s.set_temperature(first_of(given.has_temperature(), given.temperature(), defaults.temperature, 1.0f));
  s.set_top_k(first_of(given.has_top_k(), given.top_k(), defaults.top_k, 0));
  s.set_top_p(first_of(given.has_top_p(), given.top_p(), defaults.top_p, 1.0f));
  s.set_min_p(first_of(given.has_min_p(), given.min_p(), defaults.min_p, 0.0f));
  s.set_repetition_penalty(
      first_of(given.has_repetition_penalty(), given.repetition_penalty(), defaults.repetition_penalty, 1.0f));
  s.set_presence_penalty(given.has_presence_penalty() ? given.presence_penalty() : 0.0f);
  s.set_frequency_penalty(given.has_frequency_penalty() ? given.frequency_penalty() : 0.0f);
  s.set_seed(given.has_seed() ? given.seed() : seed);
  s.set_max_tokens(given.has_max_tokens() ? given.max_tokens() : 16);
  s.set_ignore_eos(given.ignore_eos());
  s.set_skip_special_tokens(given.has_skip_special_tokens() ? given.skip_special_tokens() : true);
  s.set_include_stop_str_in_output(given.include_stop_str_in_output());
  s.set_min_tokens(given.min_tokens());
  if (!given.guided_json_object()) s.clear_guided_json_object();
  return s;
}

absl::StatusOr<ValidRequest> validate_request(const v1::GenerateRequest& request, const ValidationLimits& limits) {
  ValidRequest valid;
  if (request.request_id().size() > kMaxRequestIdBytes)
    return invalid("request_id has ", request.request_id().size(), " bytes, at most ", kMaxRequestIdBytes, " are allowed");
  if (absl::Status r = check_utf8("request_id", request.request_id()); !r.ok()) return r;
  valid.id = request.request_id();
  valid.sampling = effective_sampling(request.sampling_params(), limits.defaults, limits.seed);
  if (absl::Status r = check_sampling(valid.sampling, limits); !r.ok()) return r;
  if (absl::Status r = check_ids("forced_token_ids", request.forced_token_ids().ids(), limits.vocab_size); !r.ok()) return r;
  if (request.has_forced_token_ids() && request.forced_token_ids().ids().empty()) return invalid("forced_token_ids is empty");
  if (request.has_forced_choice()) {
    if (!request.has_forced_token_ids()) return invalid("forced_choice = ", request.forced_choice(), " needs forced_token_ids");
    if (request.forced_choice() >= valid.sampling.n())
      return invalid("forced_choice = ", request.forced_choice(), " must be below n = ", valid.sampling.n());
  }
  valid.first_choice = request.forced_choice();
  valid.choices = request.has_forced_choice() ? 1 : valid.sampling.n();
  absl::StatusOr<std::vector<int32_t>> prompt = prompt_ids(request, limits);
  if (!prompt.ok()) return prompt.status();
  valid.prompt = *std::move(prompt);
  const int64_t room = limits.max_model_len - static_cast<int64_t>(valid.prompt.size());
  const auto& forced = request.forced_token_ids().ids();
  if (forced.size() > room)
    return invalid("forced_token_ids has ", forced.size(), " tokens; with a prompt of ", valid.prompt.size(),
                   " they do not fit max_model_len = ", limits.max_model_len);
  valid.forced.assign(forced.begin(), forced.end());
  valid.most_tokens = valid.forced.empty() ? std::min<int64_t>(valid.sampling.max_tokens(), room) : forced.size();
  valid.return_receipt = request.return_receipt();
  valid.priority = request.priority();
  if (valid.sampling.min_tokens() > 0) {
    valid.late_token_ids.assign(valid.sampling.stop_token_ids().begin(), valid.sampling.stop_token_ids().end());
    if (!valid.sampling.ignore_eos())
      valid.late_token_ids.insert(valid.late_token_ids.end(), limits.eos_token_ids.begin(), limits.eos_token_ids.end());
  }
  absl::StatusOr<std::vector<std::vector<int32_t>>> bad_words = bad_word_tokens(valid.sampling, limits.tokenizer);
  if (!bad_words.ok()) return bad_words.status();
  valid.bad_words = *std::move(bad_words);
  absl::StatusOr<std::shared_ptr<grammar::Grammar>> grammar = compile_guided(valid.sampling, limits);
  if (!grammar.ok()) return grammar.status();
  valid.grammar = *std::move(grammar);
  return valid;
}

}  // namespace invar::engine
