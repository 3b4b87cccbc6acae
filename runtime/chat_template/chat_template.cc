#include "runtime/chat_template/chat_template.h"

#include "runtime/chat_template/interpreter.h"
#include "runtime/chat_template/parser.h"
#include "runtime/tokenizer/utf8.h"

namespace invar {
namespace {

constexpr size_t kShownOfLine = 160;  // templates that are one long line are common

std::string_view line_of(std::string_view source, int number) {
  for (; number > 1; --number) {
    const size_t end = source.find('\n');
    if (end == std::string_view::npos) return {};
    source.remove_prefix(end + 1);
  }
  return source.substr(0, source.find('\n'));
}

absl::Status status_of(const jinja::Failure& failure, const std::string& name, std::string_view source) {
  if (failure.from_template) return absl::Status(failure.code, failure.message);
  std::string text = jinja::concat("chat template ", name);
  if (failure.line > 0) text += jinja::concat(", line ", failure.line);
  text += jinja::concat(": ", failure.message);
  if (failure.line > 0) {
    std::string_view line = line_of(source, failure.line);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    const bool whole = line.size() <= kShownOfLine;
    if (!whole) {
      size_t end = kShownOfLine;
      while (end > 0 && (line[end] & 0xC0) == 0x80) --end;
      line = line.substr(0, end);
    }
    text += jinja::concat("\n  ", failure.line, " | ", line, whole ? "" : "...");
  }
  return absl::Status(failure.code, text);
}

}  // namespace

struct ChatTemplate::Parsed {
  std::string name;
  std::string source;
  jinja::Template tree;
};

absl::StatusOr<ChatTemplate> ChatTemplate::parse(std::string source, std::string name) {
  if (source.size() > jinja::kMaxSourceBytes) {
    return absl::InvalidArgumentError(
        jinja::concat("chat template ", name, ": ", source.size(), " bytes, at most ", jinja::kMaxSourceBytes, " are read"));
  }
  if (const size_t at = tokenizer::first_invalid_utf8(source); at != std::string_view::npos) {
    return absl::InvalidArgumentError(jinja::concat("chat template ", name, ": not UTF-8 at byte ", at));
  }
  auto parsed = std::make_shared<Parsed>();
  parsed->name = std::move(name);
  parsed->source = jinja::normalise_source(source);
  try {
    parsed->tree = jinja::parse_template(parsed->source);
  } catch (const jinja::Failure& failure) {
    return status_of(failure, parsed->name, parsed->source);
  }
  return ChatTemplate(std::move(parsed));
}

absl::StatusOr<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables,
                                                 std::chrono::system_clock::time_point now) const {
  return render(variables, nlohmann::ordered_json::object(), now);
}

absl::StatusOr<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables, const nlohmann::ordered_json& defaults,
                                                 std::chrono::system_clock::time_point now) const {
  if (!variables.is_object() || !defaults.is_object()) {
    return absl::InvalidArgumentError("the variables of a chat template are not an object");
  }
  try {
    return jinja::Interpreter(parsed_->tree, now).render(variables, defaults);
  } catch (const jinja::Failure& failure) {
    return status_of(failure, parsed_->name, parsed_->source);
  }
}

const std::string& ChatTemplate::name() const { return parsed_->name; }

}  // namespace invar
