// The text of a grammar as a tree; ebnf.h makes the network.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/grammar/code_points.h"

namespace invar::grammar {

struct EbnfNode {
  enum class Kind : uint8_t { kText, kClass, kSequence, kChoice, kRepeat, kRule };
  Kind kind = Kind::kSequence;  // without parts: nothing
  std::string text;             // kText
  CodePointSet characters;      // kClass
  std::vector<EbnfNode> parts;  // kSequence, kChoice; kRepeat: one
  int64_t min = 0, max = -1;    // kRepeat; -1 = no limit
  int32_t rule = 0;             // kRule
};

struct EbnfRule {
  std::string name;
  EbnfNode body;
};

struct EbnfGrammar {
  std::vector<EbnfRule> rules;
  int32_t root = 0;  // the rule of that name
};

// InvalidArgument names what is wrong or not supported, with its line and column.
absl::StatusOr<EbnfGrammar> parse_ebnf(std::string_view text);

}  // namespace invar::grammar
