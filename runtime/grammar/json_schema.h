// JSON Schema to a network. Every text the network takes satisfies the schema; of the texts that do it takes those described in
// README.md (properties in the order of the schema, white space and numbers within bounds).
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/grammar/network.h"

namespace invar::grammar {

// InvalidArgument names the keyword and where it is as a JSON pointer ("#/properties/a").
absl::StatusOr<Network> json_schema_network(std::string_view schema, int64_t reach);
// Any JSON object.
absl::StatusOr<Network> json_object_network(int64_t reach);

}  // namespace invar::grammar
