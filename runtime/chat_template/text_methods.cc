// The methods of str.
#include <algorithm>

#include "runtime/chat_template/format.h"
#include "runtime/chat_template/methods.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

// str.find and its like count in characters and search in a part of the text.
struct Window {
  std::string_view text;
  size_t before;  // characters in front of it
  bool possible;  // false: the bounds cross
};

size_t byte_of(std::string_view text, size_t character) {
  if (is_ascii(text)) return std::min(character, text.size());
  size_t at = 0;
  for (; character > 0 && at < text.size(); --character)
    at += static_cast<size_t>(tokenizer::utf8_length(static_cast<unsigned char>(text[at])));
  return at;
}

Window window(Interpreter& run, std::string_view text, const Parameters& given, size_t start, size_t stop) {
  run.budget().steps(text.size() / 64);
  const auto size = static_cast<int64_t>(character_count(text));
  const auto bound = [&](size_t i, int64_t otherwise) {
    const int64_t at = given[i].is_none() ? otherwise : given.integer(i, otherwise);
    return at < 0 ? std::max<int64_t>(at + size, 0) : at;
  };
  const int64_t from = bound(start, 0), to = std::min(bound(stop, size), size);
  if (from > to) return {{}, 0, false};
  const size_t begin = byte_of(text, static_cast<size_t>(from));
  return {text.substr(begin, byte_of(text.substr(begin), static_cast<size_t>(to - from))), static_cast<size_t>(from), true};
}

template <bool last, bool must>
Value find_part(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given(must ? "index" : "find", arguments, {"sub", "start", "end"}, 1);
  const std::string_view part = given.text(0);
  const Window w = window(run, self.text(), given, 1, 2);
  run.budget().steps((w.text.size() + part.size()) / 32);
  const size_t at = !w.possible ? std::string_view::npos : last ? find_last(w.text, part) : find_first(w.text, part);
  if (at != std::string_view::npos) return Value(static_cast<Integer>(w.before + character_count(w.text.substr(0, at))));
  if (must) fail("substring not found");
  return Value(Integer{-1});
}

Value count(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given("count", arguments, {"sub", "start", "end"}, 1);
  const Window w = window(run, self.text(), given, 1, 2);
  return Value(w.possible ? static_cast<Integer>(count_parts(w.text, given.text(0))) : Integer{0});
}

template <bool start>
Value affix(Interpreter& run, const Value& self, const Arguments& arguments) {
  const std::string_view name = start ? "startswith" : "endswith";
  const Parameters given(name, arguments, {"prefix", "start", "end"}, 1);
  const Window w = given.has(1) || given.has(2) ? window(run, self.text(), given, 1, 2) : Window{self.text(), 0, true};
  const auto fits = [&](const Value& part) {
    if (part.is_undefined()) fail_undefined(part);
    if (part.is_text()) run.budget().steps(part.text().size() / 256);
    if (!part.is_text()) fail(name, "() takes a string or a tuple of strings, not '", type_name(part), "'");
    return w.possible && (start ? w.text.starts_with(part.text()) : w.text.ends_with(part.text()));
  };
  if (given[0].is(Kind::kSequence) && given[0].sequence()->shape == Shape::kTuple) {
    const Items& parts = given[0].sequence()->items;
    run.budget().steps(parts.size());
    return Value(std::any_of(parts.begin(), parts.end(), fits));
  }
  return Value(fits(given[0]));
}

template <bool left, bool right>
Value stripped(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given(left && right ? "strip" : left ? "lstrip" : "rstrip", arguments, {"chars"});
  run.budget().steps(self.text().size() / 16);
  if (given[0].is_none()) return make_text(run.budget(), std::string(strip(self.text(), left, right)));
  run.budget().bytes(given.text(0).size() * 4);
  return make_text(run.budget(), std::string(strip(self.text(), given.text(0), left, right)));
}

Value list_of(Interpreter& run, const std::vector<std::string_view>& parts) {
  Items items;
  for (const std::string_view part : parts) items.push_back(make_text(run.budget(), std::string(part)));
  return make_sequence(run.budget(), std::move(items));
}

template <bool right>
Value split_text(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given(right ? "rsplit" : "split", arguments, {"sep", "maxsplit"});
  const int64_t limit = given.integer(1, -1);
  const std::string& text = self.text();
  // The parts may be single characters, each with the price of a value.
  if (given[0].is_none()) {
    run.budget().bytes(text.size() * sizeof(std::string_view));
    return list_of(run, right ? split_space_right(text, limit) : split_space(text, limit));
  }
  const std::string_view separator = given.text(0);
  if (separator.empty()) fail("empty separator");
  run.budget().bytes(text.size() / separator.size() * sizeof(std::string_view) + text.size());
  return list_of(run, right ? split_right(text, separator, limit) : split(text, separator, limit));
}

Value splitlines(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given("splitlines", arguments, {"keepends"});
  run.budget().bytes(self.text().size() * sizeof(std::string_view));
  return list_of(run, split_lines(self.text(), given.flag(0)));
}

template <bool right>
Value partition(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given(right ? "rpartition" : "partition", arguments, {"sep"}, 1);
  const std::string_view text = self.text(), separator = given.text(0);
  if (separator.empty()) fail("empty separator");
  run.budget().bytes(text.size());
  const size_t at = right ? find_last(text, separator) : find_first(text, separator);
  std::vector<std::string_view> parts = {text.substr(0, at), separator,
                                         at == std::string_view::npos ? "" : text.substr(at + separator.size())};
  if (at == std::string_view::npos)
    parts = right ? std::vector<std::string_view>{"", "", text} : std::vector<std::string_view>{text, "", ""};
  const Value list = list_of(run, parts);
  return make_sequence(run.budget(), list.sequence()->items, Shape::kTuple);
}

Value replace(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given("replace", arguments, {"old", "new", "count"}, 2);
  return replace_text(run, self.text(), given.text(0), given.text(1), given.integer(2, -1));
}

Value join(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given("join", arguments, {"iterable"}, 1);
  if (given[0].is_undefined()) fail_undefined(given[0]);
  std::string out;
  size_t i = 0;
  for (const Value& item : items_of(run.budget(), given[0])) {
    if (!item.is_text()) fail("sequence item ", i, ": expected str instance, ", type_name(item), " found");
    run.budget().bytes(self.text().size() + item.text().size());
    if (i++ > 0) out += self.text();
    out += item.text();
  }
  return Value(std::move(out));
}

template <std::string (*function)(std::string_view)>
Value mapped(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters none("a method of a string", arguments, {});
  run.budget().bytes(self.text().size() * 8);
  return Value(function(self.text()));
}

template <bool prefix>
Value removed(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given(prefix ? "removeprefix" : "removesuffix", arguments, {"affix"}, 1);
  std::string_view text = self.text();
  const std::string_view part = given.text(0);
  if (prefix ? text.starts_with(part) : text.ends_with(part))
    text = prefix ? text.substr(part.size()) : text.substr(0, text.size() - part.size());
  return make_text(run.budget(), std::string(text));
}

// -1: text to the left, 0: in the middle, 1: to the right
template <int side>
Value justified(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given(side < 0 ? "ljust" : side > 0 ? "rjust" : "center", arguments, {"width", "fillchar"}, 1);
  const std::string_view fill = given.text(1, " ");
  if (character_count(fill) != 1) fail("the fill character must be exactly one character long");
  return pad_text(run, self.text(), given.integer(0, 0), fill, side);
}

Value zfill(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given("zfill", arguments, {"width"}, 1);
  const std::string& text = self.text();
  const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  const Value rest = pad_text(run, std::string_view(text).substr(sign), given.integer(0, 0) - sign, "0", 1);
  return make_text(run.budget(), (sign ? text.substr(0, 1) : "") + rest.text());
}

Value expandtabs(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters given("expandtabs", arguments, {"tabsize"});
  const int64_t size = given.integer(0, 8);
  std::string out;
  int64_t column = 0;
  for (const char c : self.text()) {
    if (c == '\t') {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      run.budget().bytes(static_cast<size_t>(spaces));
      out.append(static_cast<size_t>(spaces), ' ');
      column += spaces;
    } else {
      out += c;
      column = c == '\n' || c == '\r' ? 0 : column + ((c & 0xC0) != 0x80 ? 1 : 0);
    }
  }
  return make_text(run.budget(), std::move(out));
}

Value format(Interpreter& run, const Value& self, const Arguments& arguments) {
  return format_braces(run, self.text(), arguments);
}

// One function for all isalpha() and so on: each is its own instance by the place of its name.
constexpr std::string_view kClasses[] = {"isalnum", "isalpha",   "isascii",     "isdecimal", "isdigit", "isidentifier",
                                         "islower", "isnumeric", "isprintable", "isspace",   "istitle", "isupper"};
template <size_t i>
Value in_class(Interpreter& run, const Value& self, const Arguments& arguments) {
  const Parameters none(kClasses[i], arguments, {});
  run.budget().bytes(self.text().size() * 4);
  bool known = false;
  return Value(is_class(self.text(), kClasses[i], known));
}

struct Named {
  std::string_view name;
  Method method;
};
constexpr Named kMethods[] = {
    {"capitalize", mapped<capitalize>},
    {"casefold", mapped<lower>},
    {"center", justified<0>},
    {"count", count},
    {"endswith", affix<false>},
    {"expandtabs", expandtabs},
    {"find", find_part<false, false>},
    {"format", format},
    {"index", find_part<false, true>},
    {"isalnum", in_class<0>},
    {"isalpha", in_class<1>},
    {"isascii", in_class<2>},
    {"isdecimal", in_class<3>},
    {"isdigit", in_class<4>},
    {"isidentifier", in_class<5>},
    {"islower", in_class<6>},
    {"isnumeric", in_class<7>},
    {"isprintable", in_class<8>},
    {"isspace", in_class<9>},
    {"istitle", in_class<10>},
    {"isupper", in_class<11>},
    {"join", join},
    {"ljust", justified<-1>},
    {"lower", mapped<lower>},
    {"lstrip", stripped<true, false>},
    {"partition", partition<false>},
    {"removeprefix", removed<true>},
    {"removesuffix", removed<false>},
    {"replace", replace},
    {"rfind", find_part<true, false>},
    {"rindex", find_part<true, true>},
    {"rjust", justified<1>},
    {"rpartition", partition<true>},
    {"rsplit", split_text<true>},
    {"rstrip", stripped<false, true>},
    {"split", split_text<false>},
    {"splitlines", splitlines},
    {"startswith", affix<true>},
    {"strip", stripped<true, true>},
    {"swapcase", mapped<swapcase>},
    {"title", mapped<title>},
    {"upper", mapped<upper>},
    {"zfill", zfill},
};

}  // namespace

Method find_text_method(std::string_view name) {
  const auto at = std::lower_bound(std::begin(kMethods), std::end(kMethods), name,
                                   [](const Named& m, std::string_view n) { return m.name < n; });
  return at != std::end(kMethods) && at->name == name ? at->method : nullptr;
}

}  // namespace invar::jinja
