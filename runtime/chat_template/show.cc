#include "runtime/chat_template/show.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_format.h"
#include "runtime/chat_template/interpreter.h"
#include "runtime/chat_template/text.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

void append_repr(Interpreter& run, std::string& out, const Value& value);

void append_items(Interpreter& run, std::string& out, const Items& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(run, out, items[i]);
  }
}

void append_sequence(Interpreter& run, std::string& out, const Sequence& s) {
  switch (s.shape) {
    case Shape::kList:
      out += '[';
      append_items(run, out, s.items);
      out += ']';
      return;
    case Shape::kTuple:
      out += '(';
      append_items(run, out, s.items);
      out += s.items.size() == 1 ? ",)" : ")";
      return;
    case Shape::kRange:
      out += s.range;
      return;
    case Shape::kGenerator:
      out += "<generator object>";
      return;  // Python adds an address
    case Shape::kKeys:
    case Shape::kValues:
    case Shape::kItems:
      out += s.shape == Shape::kKeys ? "dict_keys([" : s.shape == Shape::kValues ? "dict_values([" : "dict_items([";
      append_items(run, out, s.items);
      out += "])";
      return;
  }
}

void append_repr(Interpreter& run, std::string& out, const Value& value) {
  const auto held = run.deeper();  // namespaces can hold themselves
  const size_t before = out.size();
  switch (value.kind()) {
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += value.boolean() ? "True" : "False";
      break;
    case Kind::kInteger:
      out += integer_text(value.integral());
      break;
    case Kind::kFloat:
      out += float_text(value.number());
      break;
    case Kind::kText:
      run.budget().bytes(value.text().size());
      append_quoted(out, value.text());
      break;
    case Kind::kSequence:
      append_sequence(run, out, *value.sequence());
      break;
    case Kind::kDict: {
      out += '{';
      bool first = true;
      for (const auto& [key, item] : value.dict().entries) {
        if (!std::exchange(first, false)) out += ", ";
        append_repr(run, out, key);
        out += ": ";
        append_repr(run, out, item);
      }
      out += '}';
      break;
    }
    case Kind::kObject:
      out += value.object().shown(run);
      break;
  }
  // What is inside has paid for itself; this covers the rest, brackets and numbers.
  run.budget().bytes(std::min<size_t>(out.size() - before, 64));
  run.budget().steps();
}

}  // namespace

std::string integer_text(Integer value) {
  if (value >= INT64_MIN && value <= INT64_MAX) return concat(static_cast<int64_t>(value));
  std::string digits;
  const bool negative = value < 0;
  auto rest = negative ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  for (; rest > 0; rest /= 10) digits += static_cast<char>('0' + static_cast<int>(rest % 10));
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  char* end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view all(buffer, static_cast<size_t>(end - buffer));
  const size_t e = all.find('e');
  int exponent = 0;
  const char* first = buffer + e + 1 + (buffer[e + 1] == '+');
  std::from_chars(first, end, exponent);
  if (exponent >= -4 && exponent < 16) {
    end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
    std::string fixed(buffer, end);
    return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
  }
  return concat(all.substr(0, e), absl::StrFormat("e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent)));
}

void append_quoted(std::string& out, std::string_view text) {
  const char quote = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t at = 0; at < text.size();) {
    const auto c = tokenizer::code_point_at(text, at);
    const std::string_view bytes = text.substr(at, static_cast<size_t>(c.length));
    at += bytes.size();
    if (c.value == static_cast<char32_t>(quote) || c.value == '\\') {
      out += '\\';
      out += bytes;
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (is_printable(c.value)) {
      out += bytes;
    } else if (c.value < 0x100) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<uint32_t>(c.value));
    } else if (c.value < 0x10000) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<uint32_t>(c.value));
    } else {
      absl::StrAppendFormat(&out, "\\U%08x", static_cast<uint32_t>(c.value));
    }
  }
  out += quote;
}

std::string to_text(Interpreter& run, const Value& value) {
  std::string out;
  append_text(run, out, value);
  return out;
}

std::string to_repr(Interpreter& run, const Value& value) {
  std::string out;
  append_repr(run, out, value);
  return out;
}

void append_text(Interpreter& run, std::string& out, const Value& value) {
  if (value.is_text()) {
    run.budget().bytes(value.text().size());
    out += value.text();
  } else if (!value.is_undefined()) {
    append_repr(run, out, value);
  }
}

}  // namespace invar::jinja
