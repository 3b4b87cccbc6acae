// What Python's operators do with values.
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

Value binary(Interpreter& run, Operator op, const Value& left, const Value& right);
Value negated(const Value& value);   // -x
Value positive(const Value& value);  // +x

bool equal(Interpreter& run, const Value& a, const Value& b);
// a < b; fails where Python does, `sign` is for the message.
bool less(Interpreter& run, const Value& a, const Value& b, std::string_view sign = "<");
bool compare(Interpreter& run, Comparison comparison, const Value& a, const Value& b);
bool contains(Interpreter& run, const Value& container, const Value& item);

// object.name and object[index]: undefined where there is nothing.
Value attribute_of(Interpreter& run, const Value& object, std::string_view name);
Value subscript(Interpreter& run, const Value& object, const Value& index);
// object[start:stop:step]; none stands for a bound that was left out.
Value slice(Interpreter& run, const Value& object, const Value& start, const Value& stop, const Value& step);

// The integer of a bool or int; fails naming `what` for anything else, and for integers beyond 64 bits.
int64_t index_of(const Value& value, std::string_view what);

}  // namespace invar::jinja
