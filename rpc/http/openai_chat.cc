// The body of POST /v1/chat/completions.
#include "absl/strings/str_cat.h"
#include "rpc/http/ask.h"
#include "rpc/http/error_body.h"

namespace invar::http {
namespace {

// Content in parts, as templates of text models take it: one string, parts apart by a newline (vLLM's way).
absl::Status flatten_content(const std::string& field, Json& content) {
  if (content.is_string() || content.is_null()) return absl::OkStatus();
  if (!content.is_array()) return field_error(field, absl::StrCat(show(content), " is neither text nor a list of parts"));
  std::string text;
  size_t i = 0;
  for (const Json& part : content) {
    const std::string place = absl::StrCat(field, "[", i, "]");
    if (part.is_string()) {
      absl::StrAppend(&text, i > 0 ? "\n" : "", part.get<std::string>());
    } else if (part.is_object()) {
      Fields fields(part, place + ".");
      const std::string type = fields.text("type").value_or("");
      if (type != "text" && type != "input_text" && type != "refusal")
        return field_error(place + ".type", absl::StrCat("\"", type, "\" is not supported: this model reads text only"));
      absl::StrAppend(&text, i > 0 ? "\n" : "", fields.text(type == "refusal" ? "refusal" : "text").value_or(""));
      if (!fields.status().ok()) return fields.status();
    } else {
      return field_error(place, absl::StrCat(show(part), " is not a part of a message"));
    }
    ++i;
  }
  content = text;
  return absl::OkStatus();
}

// Templates write the arguments of a call as the object they are; clients send them as text.
absl::Status unpack_arguments(const std::string& field, Json& calls) {
  if (!calls.is_array()) return field_error(field, absl::StrCat(show(calls), " is not a list"));
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!calls[i].is_object()) return field_error(absl::StrCat(field, "[", i, "]"), "is not an object");
    const auto function = calls[i].find("function");
    if (function == calls[i].end() || !function->is_object()) continue;
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || !arguments->is_string()) continue;
    const std::string text = arguments->get<std::string>();
    absl::StatusOr<Json> parsed = text.empty() ? Json::object() : parse_body(text);
    if (!parsed.ok())
      return field_error(absl::StrCat(field, "[", i, "].function.arguments"),
                         absl::StrCat(show(text), " is not the text of a JSON object"));
    *arguments = *std::move(parsed);
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> read_messages(const Json& given) {
  if (!given.is_array() || given.empty()) return field_error("messages", "a list of at least one message is wanted");
  Json messages = given;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string field = absl::StrCat("messages[", i, "]");
    Json& message = messages[i];
    if (!message.is_object()) return field_error(field, absl::StrCat(show(message), " is not an object"));
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) return field_error(field + ".role", "a string is wanted");
    if (const auto content = message.find("content"); content != message.end()) {
      if (absl::Status s = flatten_content(field + ".content", *content); !s.ok()) return s;
    } else if (!message.contains("tool_calls")) {
      return field_error(field + ".content", "is missing");
    }
    for (const char* name : {"audio", "image_url"})
      if (message.contains(name) && !message[name].is_null())
        return field_error(absl::StrCat(field, ".", name), "is not supported: this model reads text only");
    if (const auto calls = message.find("tool_calls"); calls != message.end() && !calls->is_null())
      if (absl::Status s = unpack_arguments(field + ".tool_calls", *calls); !s.ok()) return s;
  }
  return messages;
}

// The answer goes on where the last message ends: what the template wrote behind its text is cut off.
absl::StatusOr<std::string> cut_after_last_message(std::string prompt, const Json& messages) {
  const Json& content = messages.back().contains("content") ? messages.back()["content"] : Json();
  if (!content.is_string()) return field_error("continue_final_message", "true, but the last message has no text");
  const std::string text = content.get<std::string>();
  const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  const std::string stripped = first == std::string::npos ? "" : text.substr(first, last - first + 1);
  const size_t at = prompt.rfind(stripped);
  if (at == std::string::npos) return field_error("continue_final_message", "true, but the template changed the last message");
  // Templates that strip messages end here with the stripped text, others with all of it.
  const size_t whole = at >= first && first != std::string::npos ? at - first : at;
  prompt.resize(prompt.compare(whole, text.size(), text) == 0 ? whole + text.size() : at + stripped.size());
  return prompt;
}

}  // namespace

absl::StatusOr<std::string> render_chat(Fields& fields, const ModelFacts& model) {
  const Json* given = fields.find("messages");
  if (given == nullptr) return field_error("messages", "is missing");
  absl::StatusOr<Json> messages = read_messages(*given);
  if (!messages.ok()) return messages.status();
  const bool go_on = fields.boolean("continue_final_message").value_or(false);
  const bool add_generation_prompt = fields.boolean("add_generation_prompt").value_or(!go_on);
  if (go_on && add_generation_prompt) fields.fail("continue_final_message", "true needs add_generation_prompt = false");
  Json variables = Json::object();
  if (const Json* more = fields.object("chat_template_kwargs")) variables = *more;
  variables["messages"] = *messages;
  variables["add_generation_prompt"] = add_generation_prompt;
  for (const char* name : {"tools", "documents"})
    if (const Json* list = fields.list(name)) variables[name] = *list;
  if (const auto effort = fields.text("reasoning_effort")) variables["reasoning_effort"] = *effort;
  fields.refuse("chat_template", "is not taken from requests (there is no --trust-request-chat-template); the server's is used");
  if (!fields.status().ok()) return fields.status();
  if (model.render == nullptr)
    return field_error("messages", "this model has no chat template; use /v1/completions, or serve with --chat-template");
  absl::StatusOr<std::string> prompt = model.render(variables);
  if (!prompt.ok())
    return with_details(absl::Status(prompt.status().code(), absl::StrCat("messages: ", prompt.status().message())), 400, "",
                        "messages");
  return go_on ? cut_after_last_message(*std::move(prompt), *messages) : prompt;
}

absl::StatusOr<Ask> parse_chat(const Json& body, const ModelFacts& model) {
  Ask ask;
  v1::GenerateRequest base;
  Fields fields(body);
  if (absl::Status s = check_model_name(fields, model); !s.ok()) return s;
  read_shared(fields, model, ask, base);
  v1::SamplingParams& sampling = *base.mutable_sampling_params();
  ask.logprobs = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, INT32_MAX);
  if (top.value_or(0) > 0 && !ask.logprobs) fields.fail("top_logprobs", absl::StrCat(*top, " needs logprobs = true"));
  if (ask.logprobs) sampling.set_logprobs(static_cast<int32_t>(top.value_or(0)));
  const auto old_name = fields.integer("max_tokens", 1, INT32_MAX);
  const auto new_name = fields.integer("max_completion_tokens", 1, INT32_MAX);
  // Without a limit an answer ends with the context, not after the 16 tokens of /v1/completions.
  sampling.set_max_tokens(static_cast<uint32_t>(new_name.value_or(old_name.value_or(std::max<int64_t>(1, model.max_model_len)))));
  read_tools(fields, model, ask, sampling);
  fields.refuse("echo", "is not supported here");
  fields.refuse("functions", "are not supported; use tools");
  fields.refuse("function_call", "is not supported; use tool_choice");
  fields.refuse("audio", "is not supported");
  fields.refuse("prediction", "is not supported");
  fields.refuse("web_search_options", "are not supported");
  fields.ignore({"modalities", "include_reasoning", "mm_processor_kwargs", "verbosity"});
  const bool add_special_tokens = fields.boolean("add_special_tokens").value_or(false);
  if (!fields.status().ok()) return fields.status();
  absl::StatusOr<std::string> prompt = render_chat(fields, model);
  if (!prompt.ok()) return prompt.status();
  absl::StatusOr<std::vector<int32_t>> ids = encode_prompt("messages", *prompt, add_special_tokens, model, ask.keep_last);
  if (!ids.ok()) return ids.status();
  base.mutable_prompt_token_ids()->mutable_ids()->Add(ids->begin(), ids->end());
  ask.requests.push_back(std::move(base));
  ask.field_names.insert(ask.field_names.end(), {{"prompt_token_ids", "messages"}, {"logprobs", "top_logprobs"}});
  if (new_name) ask.field_names.emplace_back("max_tokens", "max_completion_tokens");
  ask.ignored = fields.unknown();
  return ask;
}

}  // namespace invar::http
