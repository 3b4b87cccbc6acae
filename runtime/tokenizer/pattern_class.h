// Escapes and bracket classes of Oniguruma patterns, rewritten for PCRE2. Part of pattern_dialect.h.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace invar::tokenizer {

// Oniguruma's \w as text between brackets. PCRE2's has no marks; and outside of classes, but not in them, Oniguruma counts
// Latin-1's small digits and fractions as letters.
inline constexpr std::string_view kWordInClass = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
inline constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

// What an escape or a character in a class stands for: one character, or a set of characters.
struct PatternItem {
  bool is_set = false;
  char32_t literal = 0;
  bool negated = false;  // of the set
  std::string inside;    // the set, as text between the brackets of a PCRE2 class

  std::string outside() const;  // as a pattern that matches one character
};

// Reads the escape at `at`, which must be a backslash, and moves `at` past it. `escape`s that are no characters (\b, \A ..)
// are not for here.
absl::StatusOr<PatternItem> read_escape(std::string_view pattern, size_t& at, bool in_class);

// Reads the class at `at`, which must be '[', and moves `at` past it. Nested classes and intersections (&&), which PCRE2
// does not have, become alternatives and look-aheads. The result matches one character.
absl::StatusOr<std::string> read_class(std::string_view pattern, size_t& at, int depth = 0);

}  // namespace invar::tokenizer
