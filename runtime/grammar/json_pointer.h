// JSON pointers: where in a schema something is.
#pragma once

#include <string>
#include <string_view>

#include "nlohmann/json.hpp"

namespace invar::grammar {

// `at` with one more step, escaped as the standard asks.
std::string below(std::string_view at, std::string_view step);
// What a "$ref" within the same text names ("#", "#/$defs/a"); null if nothing is there or it is not of that form.
const nlohmann::ordered_json* resolve_pointer(const nlohmann::ordered_json& root, std::string_view reference);

}  // namespace invar::grammar
