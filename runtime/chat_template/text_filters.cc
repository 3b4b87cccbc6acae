// Filters on text. Whatever comes is made into text first, as Jinja does.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "runtime/chat_template/filters.h"
#include "runtime/chat_template/format.h"
#include "runtime/chat_template/json_text.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"
#include "runtime/chat_template/text.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

template <std::string (*function)(std::string_view)>
Value mapped(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("the filter", arguments, {});
  const std::string text = to_text(run, subject);
  run.budget().bytes(text.size() * 8);
  return Value(function(text));
}

// The filter's idea of words differs from str.title().
std::string title_words(std::string_view text) {
  const auto parts_words = [](char32_t c) { return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<'; };
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto first = tokenizer::code_point_at(text, at);
    size_t end = at;
    while (end < text.size()) {
      const auto c = tokenizer::code_point_at(text, end);
      if (parts_words(c.value) != parts_words(first.value)) break;
      end += static_cast<size_t>(c.length);
    }
    const auto head = static_cast<size_t>(first.length);
    out += upper(text.substr(at, head)) + lower(text.substr(at + head, end - at - head));
    at = end;
  }
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Value url_quoted(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("urlencode", arguments, {});
  if (subject.is(Kind::kSequence) || subject.is(Kind::kDict)) fail("urlencode of '", type_name(subject), "' is not supported");
  const std::string text = to_text(run, subject);
  run.budget().bytes(text.size() * 3);
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || std::string_view("_.-~/").find(c) != std::string_view::npos) {
      out += c;
    } else {
      absl::StrAppendFormat(&out, "%%%02X", byte);
    }
  }
  return Value(std::move(out));
}

Value as_text(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("string", arguments, {});
  return subject.is_text() ? subject : Value(to_text(run, subject));
}

Value trim(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("trim", arguments, {"chars"});
  const std::string text = to_text(run, subject);
  if (given[0].is_none()) return Value(strip(text, true, true));
  run.budget().bytes(given.text(0).size() * 4);
  return Value(strip(text, given.text(0), true, true));
}

Value replace(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("replace", arguments, {"old", "new", "count"}, 2);
  const int64_t count = given[2].is_none() ? -1 : given.integer(2, -1);
  return replace_text(run, to_text(run, subject), to_text(run, given[0]), to_text(run, given[1]), count);
}

Value center(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("center", arguments, {"width"});
  return pad_text(run, to_text(run, subject), given.integer(0, 80), " ", 0);
}

Value indent(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("indent", arguments, {"width", "first", "blank"});
  if (subject.is_undefined()) fail_undefined(subject);
  if (!subject.is_text()) fail("indent wants a string, not '", type_name(subject), "'");
  std::string by;
  if (given[0].is_text()) {
    by = given.text(0);
  } else {
    by = pad_text(run, "", given.integer(0, 4), " ", 1).text();
  }
  const bool first = given.flag(1), blank = given.flag(2);
  const std::string text = subject.text() + "\n";  // so that the last line counts if it is empty
  run.budget().bytes(text.size() * sizeof(std::string_view));
  std::string out;
  bool begun = false;
  for (const std::string_view line : split_lines(text, false)) {
    run.budget().bytes(line.size() + by.size() + 1);
    if (begun) out += '\n';
    if (begun ? blank || !line.empty() : first) out += by;
    out += line;
    begun = true;
  }
  return Value(std::move(out));
}

Value truncate(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters given("truncate", arguments, {"length", "killwords", "end", "leeway"});
  if (subject.is_undefined()) return Value(std::string());
  if (!subject.is_text()) fail("truncate wants a string, not '", type_name(subject), "'");
  const std::string_view end = given.text(2, "...");
  const int64_t length = given.integer(0, 255), leeway = given[3].is_none() ? 5 : given.integer(3, 5);
  const auto end_length = static_cast<int64_t>(character_count(end));
  if (length < end_length) fail("truncate: expected length >= ", end_length, ", got ", length);
  if (leeway < 0) fail("truncate: expected leeway >= 0, got ", leeway);
  const std::string& text = subject.text();
  run.budget().steps(text.size() / 64);
  const auto size = static_cast<int64_t>(character_count(text));
  if (size <= leeway || size - leeway <= length) return subject;
  const Value kept = slice(run, subject, Value(), Value(Integer{length - end_length}), Value());
  std::string_view head = kept.text();
  if (!given.flag(1)) {
    const size_t space = head.rfind(' ');
    if (space != std::string_view::npos) head = head.substr(0, space);
  }
  return make_text(run.budget(), concat(head, end));
}

Value word_count(Interpreter& run, const Value& subject, const Arguments& arguments) {
  const Parameters none("wordcount", arguments, {});
  const std::string text = to_text(run, subject);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const auto c = tokenizer::code_point_at(text, at);
    const bool word = tokenizer::is_word(c.value);
    words += word && !inside;
    inside = word;
    at += static_cast<size_t>(c.length);
  }
  return Value(Integer{words});
}

Value format(Interpreter& run, const Value& subject, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) fail("format takes either values or named values, not both");
  const std::string pattern = to_text(run, subject);
  if (arguments.named.empty())
    return format_percent(run, pattern, make_sequence(run.budget(), arguments.positional, Shape::kTuple));
  DictMaker values(run.budget());
  for (const auto& [name, value] : arguments.named) values.set(Value(name), value);
  return format_percent(run, pattern, values.done());
}

}  // namespace

std::vector<FilterEntry> text_filters() {
  return {
      {"capitalize", mapped<capitalize>},
      {"center", center},
      {"e", mapped<escaped>},
      {"escape", mapped<escaped>},
      {"forceescape", mapped<escaped>},
      {"format", format},
      {"indent", indent},
      {"lower", mapped<lower>},
      {"replace", replace},
      {"safe", as_text},  // nothing is escaped unasked, so nothing has to be kept from it
      {"string", as_text},
      {"title", mapped<title_words>},
      {"tojson", tojson},
      {"trim", trim},
      {"truncate", truncate},
      {"upper", mapped<upper>},
      {"urlencode", url_quoted},
      {"wordcount", word_count},
  };
}

}  // namespace invar::jinja
