// The fields that /v1/completions and /v1/chat/completions share: OpenAI's and vLLM's names.
#include <algorithm>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "rpc/http/ask.h"
#include "rpc/http/error_body.h"
#include "runtime/engine/validate.h"

namespace invar::http {
namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

void read_logit_bias(Fields& fields, v1::SamplingParams& sampling) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  for (const auto& [key, value] : bias->items()) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < 0) return fields.fail("logit_bias", absl::StrCat("\"", key, "\" is not a token id"));
    if (!value.is_number()) return fields.fail(absl::StrCat("logit_bias.", key), absl::StrCat(show(value), " is not a number"));
    (*sampling.mutable_logit_bias())[id] = static_cast<float>(value.get<double>());
  }
}

void read_stream(Fields& fields, Ask& ask) {
  ask.stream = fields.boolean("stream").value_or(false);
  const Json* given = fields.object("stream_options");
  if (given == nullptr) return;
  if (!ask.stream) return fields.fail("stream_options", "only with stream = true");
  Fields options(*given, "stream_options.");
  ask.include_usage = options.boolean("include_usage").value_or(false);
  ask.continuous_usage = options.boolean("continuous_usage_stats").value_or(false) && ask.include_usage;
  fields.fail(options.status());
}

}  // namespace

absl::Status check_model_name(Fields& fields, const ModelFacts& model) {
  const std::optional<std::string> name = fields.text("model");
  if (!name || name->empty() || model.names.empty()) return fields.status();
  for (const std::string& known : model.names)
    if (*name == known) return absl::OkStatus();
  return with_details(
      absl::NotFoundError(absl::StrCat("The model `", *name, "` does not exist; this server has `", model.names.front(), "`")),
      404, "model_not_found", "model");
}

absl::Status check_prompt_length(const std::string& field, size_t tokens, const ModelFacts& model) {
  if (tokens == 0) return field_error(field, "it has no tokens");
  if (static_cast<int64_t>(tokens) < model.max_model_len) return absl::OkStatus();
  return with_details(
      absl::InvalidArgumentError(absl::StrCat(
          field, ": it has ", tokens, " tokens; with one answer token at least it must fit the model's ", model.max_model_len)),
      400, "context_length_exceeded", field);
}

void truncate_prompt(std::vector<int32_t>& ids, std::optional<int64_t> keep_last) {
  const auto size = static_cast<int64_t>(ids.size());
  if (keep_last && *keep_last < size) ids.erase(ids.begin(), ids.begin() + (size - *keep_last));
}

absl::StatusOr<std::vector<int32_t>> encode_prompt(const std::string& field, const std::string& text, bool add_special_tokens,
                                                   const ModelFacts& model, std::optional<int64_t> keep_last) {
  if (model.tokenizer == nullptr) return field_error(field, "text needs a tokenizer and this model has none; send token ids");
  absl::StatusOr<std::vector<int32_t>> ids = model.tokenizer->encode(text, add_special_tokens);
  if (!ids.ok())
    return with_details(absl::Status(ids.status().code(), absl::StrCat(field, ": ", ids.status().message())), 400, "", field);
  truncate_prompt(*ids, keep_last);
  if (absl::Status s = check_prompt_length(field, ids->size(), model); !s.ok()) return s;
  return ids;
}

void read_invar(Fields& fields, Ask& ask, v1::GenerateRequest& base) {
  const Json* given = fields.object("invar");
  if (given == nullptr) return;
  Fields invar(*given, "invar.");
  base.set_return_receipt(invar.boolean("receipt").value_or(false));
  ask.logprob_bits = invar.boolean("logprob_bits").value_or(false);
  base.set_require_model_digest(invar.text("require_model_digest").value_or(""));
  for (const std::string& name : invar.unknown()) invar.fail(name, "no such option; receipt, logprob_bits, require_model_digest");
  fields.fail(invar.status());
}

void read_shared(Fields& fields, const ModelFacts& model, Ask& ask, v1::GenerateRequest& base) {
  v1::SamplingParams& s = *base.mutable_sampling_params();
  const auto set = [](const auto& value, auto setter) {
    if (value) setter(*value);
  };
  set(fields.integer("n", 1, engine::kMaxChoices), [&](int64_t v) { s.set_n(ask.n = static_cast<uint32_t>(v)); });
  set(fields.real("temperature"), [&](float v) { s.set_temperature(v); });
  set(fields.integer("top_k", -1, kMost), [&](int64_t v) { s.set_top_k(static_cast<int32_t>(v)); });
  set(fields.real("top_p"), [&](float v) { s.set_top_p(v); });
  set(fields.real("min_p"), [&](float v) { s.set_min_p(v); });
  set(fields.real("repetition_penalty"), [&](float v) { s.set_repetition_penalty(v); });
  set(fields.real("presence_penalty"), [&](float v) { s.set_presence_penalty(v); });
  set(fields.real("frequency_penalty"), [&](float v) { s.set_frequency_penalty(v); });
  set(fields.integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()),
      [&](int64_t v) { s.set_seed(static_cast<uint64_t>(v)); });
  set(fields.boolean("ignore_eos"), [&](bool v) { s.set_ignore_eos(v); });
  set(fields.boolean("skip_special_tokens"), [&](bool v) { s.set_skip_special_tokens(v); });
  set(fields.boolean("include_stop_str_in_output"), [&](bool v) { s.set_include_stop_str_in_output(v); });
  set(fields.integer("min_tokens", 0, kMost), [&](int64_t v) { s.set_min_tokens(static_cast<uint32_t>(v)); });
  set(fields.integer("prompt_logprobs", 0, kMost), [&](int64_t v) { s.set_prompt_logprobs(static_cast<int32_t>(v)); });
  for (std::string& stop : fields.texts("stop")) s.add_stop(std::move(stop));
  for (const int32_t id : fields.ids("stop_token_ids")) s.add_stop_token_ids(id);
  for (const int32_t id : fields.ids("allowed_token_ids")) s.add_allowed_token_ids(id);
  for (std::string& word : fields.texts("bad_words")) s.add_bad_words(std::move(word));
  read_logit_bias(fields, s);
  read_structured(fields, s, ask.field_names);
  set(fields.integer("priority", std::numeric_limits<int32_t>::min(), kMost),
      [&](int64_t v) { base.set_priority(static_cast<int32_t>(v)); });
  // -1: as much of it as leaves room for an answer.
  if (const auto keep = fields.integer("truncate_prompt_tokens", -1, std::max<int64_t>(1, model.max_model_len))) {
    ask.keep_last = *keep > 0 ? *keep : std::max<int64_t>(1, model.max_model_len - 1);
    if (*keep == 0) fields.fail("truncate_prompt_tokens", "0 leaves no prompt; at least 1, or -1");
  }
  ask.request_id = fields.text("request_id").value_or("");
  ask.tokens_as_ids = fields.boolean("return_tokens_as_token_ids").value_or(false);
  ask.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  read_stream(fields, ask);
  read_invar(fields, ask, base);
  fields.refuse("use_beam_search", "is not supported");
  fields.refuse("logits_processors", "are not supported");
  fields.refuse("kv_transfer_params", "are not supported");
  // vLLM's words.
  if (const Json* given = fields.find("prompt_logprobs"); ask.stream && given != nullptr && *given != 0)
    fields.fail("prompt_logprobs", "`prompt_logprobs` are not available when `stream=True`");
  fields.ignore({"user", "metadata", "store", "service_tier", "length_penalty", "early_stopping", "spaces_between_special_tokens",
                 "safety_identifier", "prompt_cache_key", "cache_salt", "vllm_xargs", "stream_options"});
}

}  // namespace invar::http
