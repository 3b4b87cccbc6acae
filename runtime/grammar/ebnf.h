// Grammars as users of llama.cpp (GBNF) and xgrammar write them: name ::= "text" [a-z] (other | "x")* {2,5}; they may refer to
// themselves. runtime/grammar/README.md has the syntax.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "runtime/grammar/network.h"

namespace invar::grammar {

// InvalidArgument names what is wrong or not supported, with its line and column, or the rule.
absl::StatusOr<Network> ebnf_network(std::string_view text, int64_t reach);

}  // namespace invar::grammar
