// The methods of text, lists, tuples, dicts and numbers. Those that would change their receiver exist and fail, as in the
// sandbox that transformers uses.
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

bool has_method(const Value& receiver, std::string_view name);
// `name`: one for which has_method() is true.
Value run_method(Interpreter& run, const Value& receiver, std::string_view name, const Arguments& arguments);

using Method = Value (*)(Interpreter& run, const Value& receiver, const Arguments& arguments);
Method find_text_method(std::string_view name);  // text_methods.cc; nullptr: none

}  // namespace invar::jinja
