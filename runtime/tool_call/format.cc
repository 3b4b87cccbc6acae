#include "runtime/tool_call/format.h"

#include "absl/strings/str_cat.h"

namespace invar::tool_call {

absl::StatusOr<Format> format_named(std::string_view name) {
  if (name == "hermes") return Format::kHermes;
  if (name == "llama3_json") return Format::kLlama3Json;
  if (name == "mistral") return Format::kMistral;
  return absl::InvalidArgumentError(absl::StrCat("\"", std::string(name), "\" is not supported; hermes, llama3_json, mistral"));
}

std::string_view begin_of(Format format) {
  switch (format) {
    case Format::kHermes:
      return "<tool_call>";
    case Format::kMistral:
      return "[TOOL_CALLS]";
    default:
      return "";
  }
}

}  // namespace invar::tool_call
