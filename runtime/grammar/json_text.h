// The parts of JSON that do not depend on a schema: strings, white space, numbers, any value.
//
// White space that the grammar lets a model write, between "{", "[", "," or ":" and what follows, and before "}" and "]":
// nothing, one space, or one or two line feeds and up to 20 spaces or tabs. It is bounded, or some models would write it for
// ever.
//
// A string without a pattern may be spelled in any way JSON knows, but no half of a surrogate pair may stand alone. A string with
// a pattern or a format, a constant and a property's name are spelled in one way: escaped is only what must be, with the short
// escape where there is one, else \u00 and two small digits.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/grammar/network.h"
#include "runtime/grammar/regex.h"

namespace invar::grammar {

// Numbers have at most this many digits before the point, behind it, and in the exponent, so that every reader can hold them.
inline constexpr int kMostIntegerDigits = 19;
inline constexpr int kMostFractionDigits = 16;
inline constexpr int kMostExponentDigits = 2;

std::string json_spelling(std::string_view utf8);  // with the quotes

// The one spelling of a character inside a string.
class JsonSpelling : public Spelling {
 public:
  void add(NetworkBuilder& builder, int32_t from, const CodePointSet& set, int32_t to) const override;
};

// Rules that are made when they are first asked for.
class JsonText {
 public:
  explicit JsonText(NetworkBuilder& builder) : b_(builder) {}

  int32_t white_space();
  int32_t string();
  int32_t string(int64_t min_length, int64_t max_length);  // characters; max < 0: no limit
  int32_t integer();
  int32_t number();
  int32_t any_value();
  int32_t any_object();
  int32_t any_array();
  // A property's name that is none of these.
  int32_t name_except(const std::vector<std::string>& names);

 private:
  // One character of a string in any spelling.
  void character(int32_t from, int32_t to);
  void digits(int32_t from, int64_t min, int64_t max, int32_t to);

  NetworkBuilder& b_;
  int32_t white_space_ = -1, string_ = -1, integer_ = -1, number_ = -1, value_ = -1, object_ = -1, array_ = -1;
};

}  // namespace invar::grammar
