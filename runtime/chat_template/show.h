// Values as text: Python's str() and repr().
#pragma once

#include <string>

#include "runtime/chat_template/value.h"

namespace invar::jinja {

std::string integer_text(Integer value);
std::string float_text(double value);  // repr(): the shortest text that reads back as the same number
// repr() of text: quoted, with escapes.
void append_quoted(std::string& out, std::string_view text);

std::string to_text(Interpreter& run, const Value& value);  // str()
std::string to_repr(Interpreter& run, const Value& value);
void append_text(Interpreter& run, std::string& out, const Value& value);

}  // namespace invar::jinja
