// The tojson filter as transformers has it: Python's json.dumps, no HTML escapes.
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // of one level; without it everything stands in one line
  std::string item_separator = ", ", key_separator = ": ";
};

std::string to_json(Interpreter& run, const Value& value, const JsonStyle& style);
// tojson(value, ensure_ascii, indent, separators, sort_keys)
Value tojson(Interpreter& run, const Value& value, const Arguments& arguments);

}  // namespace invar::jinja
