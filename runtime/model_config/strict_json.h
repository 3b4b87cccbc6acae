// JSON as untrusted input: bounded nesting, no key twice in an object, nothing after the value.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace invar {

// InvalidArgument naming the byte (from 0) or the key. A key given twice is refused because readers disagree on which one
// counts; NaN and Infinity, which Python writes, are refused because JSON has no such values.
absl::StatusOr<nlohmann::json> parse_strict_json(std::string_view text, int max_depth = 16);

// A value in an error message: its JSON text, cut when long.
std::string show_json(const nlohmann::json& value);
// The same for text from a file (a key, a tensor name): control and non-UTF-8 bytes escaped, cut when long.
std::string show_text(std::string_view text);

}  // namespace invar
