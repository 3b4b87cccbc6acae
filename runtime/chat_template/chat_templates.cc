#include "runtime/chat_template/chat_templates.h"

#include <algorithm>

#include "runtime/chat_template/limits.h"
#include "runtime/model_config/message.h"
#include "runtime/model_config/strict_json.h"
#include "runtime/model_config/text_file.h"

namespace invar {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 32;
constexpr std::string_view kTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};

absl::Status in_file(const fs::path& file, const absl::Status& status) {
  return absl::Status(status.code(), message(file.string(), ": ", status.message()));
}

// nullopt: the file is not there.
absl::StatusOr<std::optional<std::string>> read_if_there(const fs::path& file, uintmax_t max_bytes) {
  std::error_code error;
  if (!fs::exists(file, error)) return std::nullopt;
  auto text = read_text_file(file, max_bytes);
  if (!text.ok()) return text.status();
  return *std::move(text);
}

absl::StatusOr<std::optional<nlohmann::json>> read_object(const fs::path& file) {
  auto text = read_if_there(file, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  if (!*text) return std::nullopt;
  auto json = parse_strict_json(**text, kMaxDepth);
  if (!json.ok()) return in_file(file, json.status());
  if (!json->is_object()) return absl::InvalidArgumentError(message(file.string(), ": not an object"));
  return *std::move(json);
}

using Sources = std::map<std::string, std::pair<std::string, std::string>>;  // template's name -> text, name in messages

// The member chat_template: a string, or [{"name": ..., "template": ...}, ...].
absl::Status take_member(const nlohmann::json& object, const fs::path& file, Sources& sources) {
  const auto member = object.find("chat_template");
  if (member == object.end() || member->is_null()) return absl::OkStatus();
  const auto wrong = [&](const nlohmann::json& value) {
    return absl::InvalidArgumentError(
        message(file.string(), ": chat_template is neither a string nor a list of {name, template}: ", show_json(value)));
  };
  if (member->is_string()) {
    sources["default"] = {member->get<std::string>(), file.string()};
    return absl::OkStatus();
  }
  if (!member->is_array()) return wrong(*member);
  for (const auto& entry : *member) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() || !entry.contains("template") ||
        !entry["template"].is_string()) {
      return wrong(entry);
    }
    const auto name = entry["name"].get<std::string>();
    sources[name] = {entry["template"].get<std::string>(), message(file.string(), " (", name, ")")};
  }
  return absl::OkStatus();
}

absl::Status take_jinja_files(const fs::path& folder, Sources& sources) {
  const fs::path main = folder / "chat_template.jinja";
  auto text = read_if_there(main, jinja::kMaxSourceBytes);
  if (!text.ok()) return text.status();
  if (*text) sources["default"] = {**std::move(text), main.string()};
  std::error_code error;
  std::vector<fs::path> more;
  for (fs::directory_iterator at(folder / "additional_chat_templates", error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == ".jinja") more.push_back(at->path());
  }
  std::sort(more.begin(), more.end());
  for (const fs::path& file : more) {
    auto other = read_text_file(file, jinja::kMaxSourceBytes);
    if (!other.ok()) return other.status();
    sources[file.stem().string()] = {*std::move(other), file.string()};
  }
  return absl::OkStatus();
}

// A string, or an object as of an added token; anything else is no token's text.
void take_tokens(const nlohmann::json& config, nlohmann::ordered_json& tokens) {
  for (const std::string_view name : kTokens) {
    const auto member = config.find(name);
    if (member == config.end() || tokens.contains(name)) continue;
    if (member->is_string()) {
      tokens[std::string(name)] = member->get<std::string>();
    } else if (member->is_object() && member->contains("content") && (*member)["content"].is_string()) {
      tokens[std::string(name)] = (*member)["content"].get<std::string>();
    }
  }
}

}  // namespace

absl::StatusOr<ChatTemplates> ChatTemplates::load(const fs::path& model_folder, std::optional<fs::path> override_file) {
  ChatTemplates loaded;
  loaded.defaults_ = {{"tools", nullptr}, {"documents", nullptr}, {"add_generation_prompt", false}};
  Sources sources;
  const fs::path config_file = model_folder / "tokenizer_config.json", map_file = model_folder / "special_tokens_map.json";
  const auto config = read_object(config_file);
  if (!config.ok()) return config.status();
  const auto map = read_object(map_file);
  if (!map.ok()) return map.status();
  if (*config) take_tokens(**config, loaded.defaults_);
  if (*map) take_tokens(**map, loaded.defaults_);

  if (override_file) {
    auto text = read_text_file(*override_file, jinja::kMaxSourceBytes);
    if (!text.ok()) return text.status();
    sources["default"] = {*std::move(text), override_file->string()};
  } else {
    if (const absl::Status status = take_jinja_files(model_folder, sources); !status.ok()) return status;
    const fs::path processor_file = model_folder / "chat_template.json";
    if (sources.empty()) {
      const auto processor = read_object(processor_file);
      if (!processor.ok()) return processor.status();
      if (*processor) {
        if (const absl::Status status = take_member(**processor, processor_file, sources); !status.ok()) return status;
      }
    }
    if (sources.empty() && *config) {
      if (const absl::Status status = take_member(**config, config_file, sources); !status.ok()) return status;
    }
  }
  for (auto& [name, source] : sources) {
    auto parsed = ChatTemplate::parse(std::move(source.first), std::move(source.second));
    if (!parsed.ok()) return parsed.status();
    loaded.templates_.emplace(name, *std::move(parsed));
  }
  return loaded;
}

absl::StatusOr<std::string> ChatTemplates::render(const nlohmann::ordered_json& variables,
                                                  std::chrono::system_clock::time_point now) const {
  if (templates_.empty()) return absl::FailedPreconditionError("the model has no chat template");
  if (!variables.is_object()) return absl::InvalidArgumentError("the variables of a chat template are not an object");
  const auto messages = variables.find("messages");
  if (messages == variables.end() || !messages->is_array())
    return absl::InvalidArgumentError("messages: a list of messages is wanted");

  auto chosen = templates_.end();
  const auto tools = variables.find("tools");
  if (tools != variables.end() && !tools->is_null()) chosen = templates_.find("tool_use");
  if (chosen == templates_.end()) chosen = templates_.find("default");
  if (chosen == templates_.end() && templates_.size() == 1) chosen = templates_.begin();
  if (chosen == templates_.end()) {
    std::string names;
    for (const auto& [name, unused] : templates_) names += (names.empty() ? "" : ", ") + name;
    return absl::FailedPreconditionError(message("the model has several chat templates and none is named default: ", names));
  }
  return chosen->second.render(variables, defaults_, now);
}

}  // namespace invar
