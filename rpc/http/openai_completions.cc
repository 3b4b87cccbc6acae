// The body of POST /v1/completions.
#include "absl/strings/str_cat.h"
#include "rpc/http/ask.h"
#include "rpc/http/error_body.h"

namespace invar::http {
namespace {

struct Prompt {
  std::string text;
  std::vector<int32_t> ids;
};

bool is_ids(const Json& value) { return value.is_array() && (value.empty() || value.front().is_number()); }

absl::StatusOr<Prompt> read_prompt(const std::string& field, const Json& value, bool add_special_tokens, const Ask& ask,
                                   const ModelFacts& model) {
  Prompt prompt;
  if (value.is_string()) {
    prompt.text = value.get<std::string>();
    absl::StatusOr<std::vector<int32_t>> ids = encode_prompt(field, prompt.text, add_special_tokens, model, ask.keep_last);
    if (!ids.ok()) return ids.status();
    prompt.ids = *std::move(ids);
    if (ask.echo && ask.keep_last) prompt.text = model.tokenizer->decode(prompt.ids, false);
    return prompt;
  }
  if (!is_ids(value)) return field_error(field, absl::StrCat(show(value), " is neither text nor a list of token ids"));
  const Json wrapper{{"ids", value}};
  Fields fields(wrapper);
  prompt.ids = fields.ids("ids");
  if (!fields.status().ok())  // "ids[3]: ..." is prompt[3] to the client
    return field_error(field, std::string(fields.status().message()).substr(3));
  truncate_prompt(prompt.ids, ask.keep_last);
  if (absl::Status s = check_prompt_length(field, prompt.ids.size(), model); !s.ok()) return s;
  if (ask.echo && model.tokenizer != nullptr) prompt.text = model.tokenizer->decode(prompt.ids, false);
  return prompt;
}

}  // namespace

absl::StatusOr<Ask> parse_completion(const Json& body, const ModelFacts& model) {
  Ask ask;
  v1::GenerateRequest base;
  Fields fields(body);
  if (absl::Status s = check_model_name(fields, model); !s.ok()) return s;
  read_shared(fields, model, ask, base);
  v1::SamplingParams& sampling = *base.mutable_sampling_params();
  ask.echo = fields.boolean("echo").value_or(false);
  if (const auto k = fields.integer("logprobs", 0, INT32_MAX)) {
    ask.logprobs = true;
    sampling.set_logprobs(static_cast<int32_t>(*k));
    if (ask.echo) sampling.set_prompt_logprobs(static_cast<int32_t>(*k));
  }
  if (const auto most = fields.integer("max_tokens", 0, INT32_MAX)) {
    ask.no_answer = *most == 0 && ask.echo;
    if (*most == 0 && !ask.echo) fields.fail("max_tokens", "0 is less than 1; only with echo may it be 0");
    sampling.set_max_tokens(ask.no_answer ? 1 : static_cast<uint32_t>(*most));
  }
  const int64_t best_of = fields.integer("best_of", 0, INT32_MAX).value_or(ask.n);
  if (best_of != ask.n)
    fields.fail("best_of", absl::StrCat(best_of, " is not n = ", ask.n, "; choosing among more answers is not supported"));
  fields.refuse("suffix", "is not supported");
  fields.refuse("prompt_embeds", "is not supported");
  const bool add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  const Json* prompt = fields.find("prompt");
  if (prompt == nullptr) fields.fail("prompt", "is missing");
  if (!fields.status().ok()) return fields.status();

  const bool several = prompt->is_array() && !prompt->empty() && !is_ids(*prompt);
  if (several && prompt->size() > kMaxPrompts)
    return field_error("prompt", absl::StrCat("has ", prompt->size(), " prompts, at most ", kMaxPrompts));
  const size_t count = several ? prompt->size() : 1;
  for (size_t i = 0; i < count; ++i) {
    const std::string field = several ? absl::StrCat("prompt[", i, "]") : "prompt";
    absl::StatusOr<Prompt> read = read_prompt(field, several ? (*prompt)[i] : *prompt, add_special_tokens, ask, model);
    if (!read.ok()) return read.status();
    v1::GenerateRequest& request = ask.requests.emplace_back(base);
    request.mutable_prompt_token_ids()->mutable_ids()->Add(read->ids.begin(), read->ids.end());
    if (ask.echo) ask.prompt_texts.push_back(std::move(read->text));
  }
  ask.field_names.emplace_back("prompt_token_ids", "prompt");
  ask.ignored = fields.unknown();
  return ask;
}

}  // namespace invar::http
