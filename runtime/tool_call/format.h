// The forms in which models write the calls of tools, by the names that vLLM's --tool-call-parser has for them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace invar::tool_call {

enum class Format : uint8_t {
  kHermes,      // text <tool_call>{"name": ..., "arguments": {...}}</tool_call> ...
  kLlama3Json,  // {"name": ..., "parameters": {...}}; {...}, perhaps behind <|python_tag|>, and nothing before it
  kMistral,     // text [TOOL_CALLS][{"name": ..., "arguments": {...}}, ...], or [TOOL_CALLS]name{...}[TOOL_CALLS]...
  kForced,      // [{"name": ..., "parameters": {...}}, ...]: what the schema of tool_choice = "required" makes
};

// InvalidArgument lists the names there are.
absl::StatusOr<Format> format_named(std::string_view name);
// The text that begins a call where it is a token; models may have it as a special one. Empty: none.
std::string_view begin_of(Format format);

}  // namespace invar::tool_call
