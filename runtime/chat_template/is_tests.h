// value is test(arguments)
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

using TestFunction = bool (*)(Interpreter& run, const Value& subject, const Arguments& arguments);

struct TestEntry {
  std::string_view name;
  TestFunction holds;
};

// nullptr: there is none of that name.
const TestEntry* find_test(std::string_view name);

}  // namespace invar::jinja
