#include "runtime/tool_call/value_scanner.h"

#include <string>

namespace invar::tool_call {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

size_t ValueScanner::take(std::string_view text, size_t at, bool* done) {
  *done = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
        if (depth_ == 0) {
          *done = true;
          return at + 1;
        }
      }
      continue;
    }
    if (!begun_) {
      if (is_space(c)) continue;
      if (c == ',' || c == ':' || c == '}' || c == ']') {
        broken_ = *done = true;
        return at;
      }
      begun_ = true;
      plain_ = c != '{' && c != '[' && c != '"';
    } else if (plain_ && (is_space(c) || c == ',' || c == '}' || c == ']' || c == '"' || c == '{' || c == '[')) {
      *done = true;
      return at;
    }
    if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if ((c == '}' || c == ']') && --depth_ == 0) {
      *done = true;
      return at + 1;
    }
  }
  return at;
}

}  // namespace invar::tool_call
