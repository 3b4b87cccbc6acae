// value | filter(arguments)
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

using FilterFunction = Value (*)(Interpreter& run, const Value& subject, const Arguments& arguments);

struct FilterEntry {
  std::string_view name;
  FilterFunction apply;
};

// nullptr: there is none of that name.
const FilterEntry* find_filter(std::string_view name);

// By file, for the table in filters.cc.
std::vector<FilterEntry> text_filters();
std::vector<FilterEntry> number_filters();
std::vector<FilterEntry> sequence_filters();
std::vector<FilterEntry> selection_filters();

// "a.b.0" or a number: what map(attribute=...), sort and their like look up in an item, step by step. None: the item itself.
class AttributePath {
 public:
  explicit AttributePath(const Value& attribute);
  explicit AttributePath(std::string_view dotted);
  // `otherwise`, where it is not null, stands in for what is undefined.
  Value of(Interpreter& run, Value item, const Value* otherwise = nullptr) const;

 private:
  Items steps_;
};

// Text in lower case, anything else as it is: what sorting and comparing without case looks at.
Value without_case(Interpreter& run, const Value& value);

}  // namespace invar::jinja
