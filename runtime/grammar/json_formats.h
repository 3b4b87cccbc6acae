// The values of JSON Schema's "format" that can be enforced.
#pragma once

#include <string>
#include <string_view>

namespace invar::grammar {

// A regular expression for the whole string, empty for a format that is not known.
std::string_view json_format(std::string_view name);
// For an error message.
std::string json_format_names();

}  // namespace invar::grammar
