// The JSON schemas that force a call.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace invar::tool_call {

// A list of at least one call, {"name": ..., "parameters": {...}}, of one of the functions ({"name", "parameters"}, at least
// one); of one call only unless `parallel`. What a function's schema refers to stays within it.
std::string schema_of_calls(const std::vector<nlohmann::ordered_json>& functions, bool parallel);
// Of the arguments of one call.
std::string schema_of_arguments(const nlohmann::ordered_json& function);

}  // namespace invar::tool_call
