// invar render: the prompt that a model's chat template makes of messages.
#include <absl/time/time.h>

#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "launch/commands.h"
#include "runtime/chat_template/chat_templates.h"
#include "runtime/model_config/text_file.h"

namespace invar::launch {
namespace {

using Json = nlohmann::ordered_json;  // templates write tools with their keys in the order they came in

struct Flags {
  std::string model;
  std::string tools;
  std::string chat_template;
  std::string clock;
  bool no_generation_prompt = false;
};

absl::StatusOr<Json> parse_json(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not JSON at byte ", error.byte));
  }
}

// The variables of the template: a list is the messages, an object is all of them.
absl::StatusOr<Json> read_variables(const Flags& flags, const std::string& in) {
  auto given = parse_json(in, "stdin");
  if (!given.ok()) return given.status();
  Json variables = Json::object();
  if (given->is_array()) {
    variables["messages"] = *std::move(given);
  } else if (given->is_object()) {
    variables = *std::move(given);
  } else {
    return absl::InvalidArgumentError("stdin: a list of messages, or an object with messages, is wanted");
  }
  // As in a request to the server: these are variables like the others.
  if (const auto more = variables.find("chat_template_kwargs"); more != variables.end()) {
    if (!more->is_object()) return absl::InvalidArgumentError("stdin: chat_template_kwargs is not an object");
    const Json members = *more;
    variables.erase(more);
    for (const auto& [name, value] : members.items()) variables[name] = value;
  }
  if (!flags.tools.empty()) {
    auto text = read_text_file(flags.tools, kMaxConfigBytes);
    if (!text.ok()) return text.status();
    auto tools = parse_json(*text, flags.tools);
    if (!tools.ok()) return tools.status();
    if (!tools->is_array()) return absl::InvalidArgumentError(absl::StrCat(flags.tools, ": a list of tools is wanted"));
    variables["tools"] = *std::move(tools);
  }
  if (flags.no_generation_prompt) {
    variables["add_generation_prompt"] = false;
  } else if (!variables.contains("add_generation_prompt")) {
    variables["add_generation_prompt"] = true;
  }
  return variables;
}

absl::StatusOr<std::chrono::system_clock::time_point> read_clock(const std::string& text) {
  if (text.empty()) return std::chrono::system_clock::now();
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, text, &time, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("--clock ", text, ": ", error, "; wanted is a time as 2025-07-10T12:00:00Z"));
  }
  return absl::ToChronoTime(time);
}

int render(const Flags& flags) {
  const auto now = read_clock(flags.clock);
  if (!now.ok()) return fail("render", now.status());
  std::error_code error;
  if (!std::filesystem::is_directory(flags.model, error))
    return fail("render", absl::NotFoundError(absl::StrCat(flags.model, ": not a folder")));
  const auto templates = ChatTemplates::load(
      flags.model, flags.chat_template.empty() ? std::nullopt : std::optional<std::filesystem::path>(flags.chat_template));
  if (!templates.ok()) return fail("render", templates.status());
  if (templates->empty()) {
    return fail("render",
                absl::NotFoundError(absl::StrCat(flags.model, ": no chat template there; --chat-template FILE names one")));
  }
  const std::string in{std::istreambuf_iterator<char>(std::cin), {}};
  const auto variables = read_variables(flags, in);
  if (!variables.ok()) return fail("render", variables.status());
  const auto prompt = templates->render(*variables, *now);
  if (!prompt.ok()) return fail("render", prompt.status());
  std::cout << *prompt << std::flush;  // exactly the prompt, no line end of our own
  return 0;
}

}  // namespace

void add_render(CLI::App& program, Commands& commands) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = program.add_subcommand("render", "chat messages to the prompt that a model's chat template makes of them");
  app->add_option("MODEL", flags->model, "folder with chat_template.jinja, or tokenizer_config.json that has one")->required();
  app->add_option("--tools", flags->tools, "JSON list of the tools that the model may call")->option_text("FILE");
  app->add_option("--chat-template", flags->chat_template, "template instead of the model's own")->option_text("FILE");
  app->add_flag("--no-generation-prompt", flags->no_generation_prompt,
                "end after the last message, without the assistant's opening");
  app->add_option("--clock", flags->clock, "what strftime_now() sees, for prompts that stay the same; default: now")
      ->option_text("RFC3339");
  app->footer(
      "stdin: a JSON list of messages, or an object with messages and any other variable (tools, documents, enable_thinking, "
      "...).\n"
      "Examples:\n"
      "  echo '[{\"role\": \"user\", \"content\": \"Hello\"}]' | invar render FOLDER\n"
      "  invar render FOLDER --tools tools.json --clock 2025-07-10T12:00:00Z < messages.json");
  commands[app] = [flags] { return render(*flags); };
}

}  // namespace invar::launch
