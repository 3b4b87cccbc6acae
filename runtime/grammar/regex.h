// Regular expressions: text to tree. The usual subset of PCRE, Python and ECMAScript; what it leaves out is refused by name.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/grammar/code_points.h"
#include "runtime/grammar/network.h"

namespace invar::grammar {

struct Regex {
  enum class Kind : uint8_t { kEmpty, kClass, kConcat, kAlternate, kRepeat, kBegin, kEnd };
  Kind kind = Kind::kEmpty;
  CodePointSet characters;    // kClass
  std::vector<Regex> parts;   // kConcat, kAlternate; kRepeat: one
  int64_t min = 0, max = -1;  // kRepeat; -1 = no limit
};

// Characters, escapes (\n \t \r \f \v \0 \xHH \x{H} \uHHHH \u{H} and escaped punctuation), . (all but \n), classes with ranges
// and \d \w \s \D \W \S (ASCII), groups (plain, (?:), named), |, * + ? {m} {m,} {m,n} also lazy, and ^ $ (begin and end of the
// whole text). InvalidArgument names what is wrong or not supported, and its byte.
absl::StatusOr<Regex> parse_regex(std::string_view pattern);

// How one character of a set is spelled between two states; every call must add the same states in the same order.
class Spelling {
 public:
  virtual ~Spelling() = default;
  virtual void add(NetworkBuilder& builder, int32_t from, const CodePointSet& set, int32_t to) const = 0;
};
class Utf8Spelling : public Spelling {
 public:
  void add(NetworkBuilder& builder, int32_t from, const CodePointSet& set, int32_t to) const override;
};

// Adds what matches between `from` and `to`. `search`: the match may lie anywhere in the text, as JSON Schema's pattern; without
// it the whole text must match.
void add_regex(NetworkBuilder& builder, const Spelling& spelling, const Regex& regex, bool search, int32_t from, int32_t to);

}  // namespace invar::grammar
