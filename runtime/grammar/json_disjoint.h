// Whether two schemas can be told apart: what oneOf needs.
#pragma once

#include "nlohmann/json.hpp"

namespace invar::grammar {

// True only if no value satisfies both, as far as types, constants and required properties with constants tell; false is no
// claim.
bool disjoint_schemas(const nlohmann::ordered_json& root, const nlohmann::ordered_json& a, const nlohmann::ordered_json& b);

}  // namespace invar::grammar
