#include "runtime/tool_call/call_scanner.h"

#include <utility>

#include "nlohmann/json.hpp"

namespace invar::tool_call {
namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

std::string CallScanner::new_arguments() { return std::exchange(arguments_, {}); }

// False: the name, or a key, is no string.
bool CallScanner::end_value() {
  if (value_.broken() || !value_.begun()) return false;
  value_ = ValueScanner();
  const std::string text = std::exchange(member_, {});
  if (place_ == Place::kKey || key_ == "name") {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_string()) return false;
    if (place_ == Place::kKey) {
      key_ = json.get<std::string>();
      place_ = Place::kColon;
      return true;
    }
    name_ = json.get<std::string>();
    has_name_ = !name_.empty();
    if (!has_name_) return false;
  }
  place_ = Place::kCommaOrEnd;
  return true;
}

CallScanner::State CallScanner::take(std::string_view text, size_t* at) {
  const auto one = [&] { raw_ += text[(*at)++]; };
  while (*at < text.size()) {
    const char c = text[*at];
    if (place_ == Place::kKey || place_ == Place::kValue) {
      bool done = false;
      const size_t begin = *at;
      const bool arguments = place_ == Place::kValue && (key_ == "arguments" || key_ == "parameters");
      *at = value_.take(text, begin, &done);
      std::string_view taken = text.substr(begin, *at - begin);
      raw_ += taken;
      if (arguments && !value_.broken()) {
        if (!has_arguments_)  // the space before them is not theirs
          while (!taken.empty() && is_space(taken.front())) taken.remove_prefix(1);
        has_arguments_ |= value_.begun();
        arguments_ += taken;
      } else {
        member_ += taken;
      }
      if (done && !end_value()) return State::kBroken;
      continue;
    }
    if (is_space(c) && place_ != Place::kBegin) {
      one();
      continue;
    }
    switch (place_) {
      case Place::kBegin:
        if (c != '{') return State::kBroken;
        place_ = Place::kKeyOrEnd;
        break;
      case Place::kKeyOrEnd:
      case Place::kCommaOrEnd:
        if (c == '}') {
          one();
          return State::kDone;
        }
        if (place_ == Place::kKeyOrEnd) {
          if (c != '"') return State::kBroken;
          place_ = Place::kKey;
          continue;
        }
        if (c != ',') return State::kBroken;
        place_ = Place::kKeyOrEnd;
        break;
      default:
        if (c != ':') return State::kBroken;
        place_ = Place::kValue;
    }
    one();
  }
  return State::kMore;
}

}  // namespace invar::tool_call
