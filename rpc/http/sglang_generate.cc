// The body of POST /generate, SGLang's own form.
#include <limits>

#include "absl/strings/str_cat.h"
#include "rpc/http/ask.h"
#include "rpc/http/error_body.h"
#include "runtime/engine/validate.h"

namespace invar::http {
namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
constexpr uint32_t kDefaultNewTokens = 128;

absl::Status read_sampling(const Json& given, v1::SamplingParams& s) {
  Fields fields(given, "sampling_params.");
  const auto set = [](const auto& value, auto setter) {
    if (value) setter(*value);
  };
  s.set_max_tokens(static_cast<uint32_t>(fields.integer("max_new_tokens", 1, kMost).value_or(kDefaultNewTokens)));
  set(fields.integer("min_new_tokens", 0, kMost), [&](int64_t v) { s.set_min_tokens(static_cast<uint32_t>(v)); });
  set(fields.integer("n", 1, engine::kMaxChoices), [&](int64_t v) { s.set_n(static_cast<uint32_t>(v)); });
  set(fields.real("temperature"), [&](float v) { s.set_temperature(v); });
  set(fields.real("top_p"), [&](float v) { s.set_top_p(v); });
  set(fields.integer("top_k", -1, kMost), [&](int64_t v) { s.set_top_k(static_cast<int32_t>(v)); });
  set(fields.real("min_p"), [&](float v) { s.set_min_p(v); });
  set(fields.real("frequency_penalty"), [&](float v) { s.set_frequency_penalty(v); });
  set(fields.real("presence_penalty"), [&](float v) { s.set_presence_penalty(v); });
  set(fields.real("repetition_penalty"), [&](float v) { s.set_repetition_penalty(v); });
  for (const char* name : {"sampling_seed", "seed"})
    set(fields.integer(name, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()),
        [&](int64_t v) { s.set_seed(static_cast<uint64_t>(v)); });
  set(fields.boolean("ignore_eos"), [&](bool v) { s.set_ignore_eos(v); });
  set(fields.boolean("skip_special_tokens"), [&](bool v) { s.set_skip_special_tokens(v); });
  set(fields.boolean("no_stop_trim"), [&](bool v) { s.set_include_stop_str_in_output(v); });
  for (std::string& stop : fields.texts("stop")) s.add_stop(std::move(stop));
  for (const int32_t id : fields.ids("stop_token_ids")) s.add_stop_token_ids(id);
  if (const auto schema = fields.text("json_schema")) s.set_guided_json(*schema);
  if (const auto pattern = fields.text("regex")) s.set_guided_regex(*pattern);
  if (const auto text = fields.text("ebnf")) s.set_guided_grammar(*text);
  fields.refuse("structural_tag", "is not supported; json_schema, regex or ebnf");
  fields.refuse("stop_regex", "is not supported; stop or stop_token_ids");
  if (const Json* bias = fields.object("logit_bias")) {
    const Json wrapper{{"logit_bias", *bias}};
    Ask unused;
    v1::GenerateRequest request;
    Fields shared(wrapper);
    read_shared(shared, ModelFacts(), unused, request);
    *s.mutable_logit_bias() = request.sampling_params().logit_bias();
    fields.fail(shared.status());
  }
  return fields.status();
}

bool is_ids(const Json& value) { return value.is_array() && (value.empty() || value.front().is_number()); }

// A value for all prompts, or a list with one for each.
const Json* nth(const Json* value, bool batch, size_t i, size_t count, const char* name, Fields& fields) {
  static const Json kNothing;
  if (value == nullptr || !value->is_array()) return value;
  if (batch && value->size() == count) return &(*value)[i];
  fields.fail(name, absl::StrCat("a list of ", value->size(), " for ", count, " prompts"));
  return &kNothing;
}

}  // namespace

absl::StatusOr<Ask> parse_sglang(const Json& body, const ModelFacts& model) {
  Ask ask;
  v1::GenerateRequest base;
  Fields fields(body);
  const Json* text = fields.find("text");
  const Json* ids = fields.find("input_ids");
  if ((text == nullptr) == (ids == nullptr)) fields.fail("text", "one of text and input_ids is wanted");
  ask.stream = fields.boolean("stream").value_or(false);
  ask.text_in_logprobs = fields.boolean("return_text_in_logprobs").value_or(false);
  const Json* given_sampling = fields.find("sampling_params");
  const Json* wanted_logprobs = fields.find("return_logprob");
  const Json* start = fields.find("logprob_start_len");
  const Json* top = fields.find("top_logprobs_num");
  const Json* rid = fields.find("rid");
  read_invar(fields, ask, base);
  for (const char* name : {"image_data", "audio_data", "video_data", "input_embeds"})
    fields.refuse(name, "is not supported: this model reads text only");
  for (const char* name :
       {"lora_path", "custom_logit_processor", "session_params", "return_hidden_states", "token_ids_logprob", "bootstrap_host"})
    fields.refuse(name, "is not supported");
  fields.ignore({"modalities", "log_metrics", "background", "priority", "extra_key", "data_parallel_rank", "conversation_id"});
  if (!fields.status().ok()) return fields.status();

  const Json& input = text != nullptr ? *text : *ids;
  const char* const field = text != nullptr ? "text" : "input_ids";
  ask.batch = text != nullptr ? input.is_array() : !is_ids(input) && input.is_array();
  const size_t count = ask.batch ? input.size() : 1;
  if (count == 0 || count > kMaxPrompts)
    return field_error(field, absl::StrCat("has ", count, " prompts, 1 to ", kMaxPrompts, " are taken"));
  for (size_t i = 0; i < count; ++i) {
    const std::string place = ask.batch ? absl::StrCat(field, "[", i, "]") : field;
    const Json one{{field, ask.batch ? input[i] : input}};
    Fields prompt(one);
    std::vector<int32_t> tokens;
    if (text != nullptr) {
      const std::string prompt_text = prompt.text(field).value_or("");
      if (!prompt.status().ok()) return prompt.status();
      absl::StatusOr<std::vector<int32_t>> encoded = encode_prompt(place, prompt_text, true, model);
      if (!encoded.ok()) return encoded.status();
      tokens = *std::move(encoded);
    } else {
      tokens = prompt.ids(field);
      if (!prompt.status().ok()) return prompt.status();
      if (absl::Status s = check_prompt_length(place, tokens.size(), model); !s.ok()) return s;
    }
    v1::GenerateRequest& request = ask.requests.emplace_back(base);
    request.mutable_prompt_token_ids()->mutable_ids()->Add(tokens.begin(), tokens.end());
    v1::SamplingParams& s = *request.mutable_sampling_params();
    const Json* sampling = nth(given_sampling, ask.batch, i, count, "sampling_params", fields);
    if (sampling != nullptr && !sampling->is_object())
      fields.fail("sampling_params", absl::StrCat(show(*sampling), " is not an object"));
    if (!fields.status().ok()) return fields.status();
    if (absl::Status read = read_sampling(sampling != nullptr ? *sampling : Json::object(), s); !read.ok()) return read;
    const uint32_t n = s.has_n() ? s.n() : 1;
    if (i > 0 && n != ask.n)
      return field_error("sampling_params.n", absl::StrCat(n, " is not the ", ask.n, " of the prompt before"));
    ask.n = n;

    const Json per_prompt{
        {"return_logprob",
         wanted_logprobs != nullptr ? *nth(wanted_logprobs, ask.batch, i, count, "return_logprob", fields) : Json()},
        {"logprob_start_len", start != nullptr ? *nth(start, ask.batch, i, count, "logprob_start_len", fields) : Json()},
        {"top_logprobs_num", top != nullptr ? *nth(top, ask.batch, i, count, "top_logprobs_num", fields) : Json()}};
    Fields logprobs(per_prompt);
    const bool wanted = logprobs.boolean("return_logprob").value_or(false);
    const int64_t first = logprobs.integer("logprob_start_len", -1, kMost).value_or(-1);
    const int32_t most = static_cast<int32_t>(logprobs.integer("top_logprobs_num", 0, kMost).value_or(0));
    fields.fail(logprobs.status());
    if (!fields.status().ok()) return fields.status();
    if (i > 0 && (wanted != ask.logprobs || first != ask.logprob_start))
      return field_error("return_logprob", "it and logprob_start_len must be the same for all prompts of a request");
    ask.logprobs = wanted;
    ask.logprob_start = first;
    if (!wanted) continue;
    s.set_logprobs(most);
    if (first >= 0) s.set_prompt_logprobs(most);
  }
  if (rid != nullptr && rid->is_string()) ask.request_id = rid->get<std::string>();
  ask.field_names = {{"prompt_token_ids", field},
                     {"logprobs", "top_logprobs_num"},
                     {"prompt_logprobs", "top_logprobs_num"},
                     {"max_tokens", "sampling_params.max_new_tokens"},
                     {"min_tokens", "sampling_params.min_new_tokens"},
                     {"guided_json", "sampling_params.json_schema"},
                     {"guided_regex", "sampling_params.regex"},
                     {"guided_grammar", "sampling_params.ebnf"}};
  for (const char* same : {"n", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty",
                           "repetition_penalty", "stop", "stop_token_ids", "logit_bias"})
    ask.field_names.emplace_back(same, absl::StrCat("sampling_params.", same));
  ask.ignored = fields.unknown();
  return ask;
}

}  // namespace invar::http
