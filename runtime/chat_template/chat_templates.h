// The chat templates of a model folder, with the special tokens that they write.
#pragma once

#include <filesystem>
#include <map>
#include <optional>

#include "runtime/chat_template/chat_template.h"

namespace invar {

// Immutable after loading; render() may be called from any number of threads at once.
class ChatTemplates {
 public:
  // No templates and no tokens.
  ChatTemplates() = default;

  // Where templates are looked for, the first that is there wins: `override_file` (the text of one template), the folder's
  // chat_template.jinja (with additional_chat_templates/NAME.jinja beside it), chat_template.json, and chat_template in
  // tokenizer_config.json. The latter two hold a string or a list of {"name", "template"}. Special tokens come from
  // tokenizer_config.json and special_tokens_map.json, strings or objects with "content".
  // A folder without any template is not an error, see empty(). Errors name the file: NotFound (override_file),
  // InvalidArgument, and those of ChatTemplate::parse().
  static absl::StatusOr<ChatTemplates> load(const std::filesystem::path& model_folder,
                                            std::optional<std::filesystem::path> override_file);

  bool empty() const { return templates_.empty(); }

  // `variables`: messages, and where wanted tools, documents, add_generation_prompt and the members of
  // chat_template_kwargs, all in one object. What is not there is as transformers has it: tools and documents are none,
  // add_generation_prompt is false, and bos_token and its like are the model's; the request's own win. "tool_use" is rendered if
  // the model has one and tools are given, otherwise "default". Errors: FailedPrecondition (no template), InvalidArgument
  // (variables is no object, messages is no list), and those of ChatTemplate::render().
  absl::StatusOr<std::string> render(const nlohmann::ordered_json& variables, std::chrono::system_clock::time_point now) const;

 private:
  std::map<std::string, ChatTemplate> templates_;  // by name; a single one is "default"
  // What a request need not say: tools, documents, add_generation_prompt, bos_token, eos_token, ...
  nlohmann::ordered_json defaults_ = nlohmann::ordered_json::object();
};

}  // namespace invar
