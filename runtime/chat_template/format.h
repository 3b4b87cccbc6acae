// Making text out of other text and values: "%d" % x, "{}".format(x), padding, replacing.
#pragma once

#include "runtime/chat_template/interpreter.h"

namespace invar::jinja {

// Conversions s r d i u f F e E g G x X o c %, with flags, width and precision; a value, a tuple of values, or a dict for
// "%(name)s".
Value format_percent(Interpreter& run, std::string_view format, const Value& values);
// Fields {}, {0}, {name}, {0.attribute[key]}, !r and !s, and format specifications without nested fields.
Value format_braces(Interpreter& run, std::string_view format, const Arguments& arguments);

// Left (-1), middle (0), right (1); width in characters. As str.ljust, center, rjust.
Value pad_text(Interpreter& run, std::string_view text, int64_t width, std::string_view fill, int side);
// Every `old` by `now`, at most `count` times if that is not negative.
Value replace_text(Interpreter& run, std::string_view text, std::string_view old, std::string_view now, int64_t count);

}  // namespace invar::jinja
