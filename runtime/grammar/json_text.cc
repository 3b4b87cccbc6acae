#include "runtime/grammar/json_text.h"

#include <map>

#include "absl/strings/str_format.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

const CodePointSet kPlain = CodePointSet{{0, 0x1f}, {'"', '"'}, {'\\', '\\'}}.complement();

std::string spelled(char32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (c < 0x20) return absl::StrFormat("\\u%04x", static_cast<unsigned>(c));
  std::string out;
  tokenizer::append_code_point(out, c);
  return out;
}

}  // namespace

std::string json_spelling(std::string_view utf8) {
  std::string out = "\"";
  for (size_t at = 0; at < utf8.size();) {
    const tokenizer::CodePoint c = tokenizer::code_point_at(utf8, at);
    out += spelled(c.value);
    at += c.length;
  }
  return out + '"';
}

void JsonSpelling::add(NetworkBuilder& builder, int32_t from, const CodePointSet& set, int32_t to) const {
  builder.sequences(from, utf8_sequences(set.without(kPlain.complement())), to);
  std::vector<std::string> escapes;
  const CodePointSet escaped = set.without(kPlain);
  for (const CodePointRange& r : escaped.ranges())
    for (char32_t c = r.first; c <= r.last; ++c) escapes.push_back(spelled(c));
  builder.literals(from, escapes, to);
}

int32_t JsonText::white_space() {
  if (white_space_ >= 0) return white_space_;
  white_space_ = b_.rule();
  const int32_t from = b_.start(white_space_), to = b_.end(white_space_), feed = b_.state(), indent = b_.state();
  b_.epsilon(from, to);
  b_.edge(from, ' ', ' ', to);
  b_.edge(from, '\n', '\n', feed);
  b_.edge(feed, '\n', '\n', indent);
  b_.epsilon(feed, indent);
  b_.repeat(indent, 0, 20, false, to, [&](int32_t a, int32_t z) {
    b_.edge(a, ' ', ' ', z);
    b_.edge(a, '\t', '\t', z);
  });
  return white_space_;
}

void JsonText::character(int32_t from, int32_t to) {
  b_.sequences(from, utf8_sequences(kPlain), to);
  const int32_t escape = b_.state(), code = b_.state(), second = b_.state(), third = b_.state(), fourth = b_.state();
  b_.edge(from, '\\', '\\', escape);
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'})
    b_.edge(escape, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
  b_.edge(escape, 'u', 'u', code);
  const auto hex = [&](int32_t a, int32_t z) {
    b_.edge(a, '0', '9', z);
    b_.edge(a, 'A', 'F', z);
    b_.edge(a, 'a', 'f', z);
  };
  const auto letter = [&](int32_t a, char first, char last, int32_t z) {
    b_.edge(a, static_cast<uint8_t>(first), static_cast<uint8_t>(last), z);
    b_.edge(a, static_cast<uint8_t>(first + 32), static_cast<uint8_t>(last + 32), z);
  };
  b_.edge(code, '0', '9', second);
  letter(code, 'A', 'C', second);
  letter(code, 'E', 'F', second);
  hex(second, third);
  hex(third, fourth);
  hex(fourth, to);
  // d000 to d7ff are characters; d800 to dbff need a partner in dc00 to dfff.
  const int32_t d = b_.state(), high3 = b_.state(), high4 = b_.state(), slash = b_.state(), u = b_.state(), low1 = b_.state(),
                low2 = b_.state();
  letter(code, 'D', 'D', d);
  b_.edge(d, '0', '7', third);
  b_.edge(d, '8', '9', high3);
  letter(d, 'A', 'B', high3);
  hex(high3, high4);
  hex(high4, slash);
  b_.edge(slash, '\\', '\\', u);
  b_.edge(u, 'u', 'u', low1);
  letter(low1, 'D', 'D', low2);
  letter(low2, 'C', 'F', third);
}

int32_t JsonText::string() {
  if (string_ < 0) string_ = string(0, -1);
  return string_;
}

int32_t JsonText::string(int64_t min_length, int64_t max_length) {
  const int32_t rule = b_.rule(), open = b_.state(), close = b_.state();
  b_.edge(b_.start(rule), '"', '"', open);
  b_.repeat(open, min_length, max_length, false, close, [&](int32_t a, int32_t z) { character(a, z); });
  b_.edge(close, '"', '"', b_.end(rule));
  return rule;
}

void JsonText::digits(int32_t from, int64_t min, int64_t max, int32_t to) {
  b_.repeat(from, min, max, false, to, [&](int32_t a, int32_t z) { b_.edge(a, '0', '9', z); });
}

int32_t JsonText::integer() {
  if (integer_ >= 0) return integer_;
  integer_ = b_.rule();
  const int32_t from = b_.start(integer_), to = b_.end(integer_), sign = b_.state(), rest = b_.state();
  b_.edge(from, '-', '-', sign);
  b_.epsilon(from, sign);
  b_.edge(sign, '0', '0', to);
  b_.edge(sign, '1', '9', rest);
  digits(rest, 0, kMostIntegerDigits - 1, to);
  return integer_;
}

int32_t JsonText::number() {
  if (number_ >= 0) return number_;
  number_ = b_.rule();
  const int32_t from = b_.start(number_), to = b_.end(number_), sign = b_.state(), rest = b_.state(), whole = b_.state(),
                point = b_.state(), mantissa = b_.state(), e = b_.state(), exponent = b_.state();
  b_.edge(from, '-', '-', sign);
  b_.epsilon(from, sign);
  b_.edge(sign, '0', '0', whole);
  b_.edge(sign, '1', '9', rest);
  digits(rest, 0, kMostIntegerDigits - 1, whole);
  b_.edge(whole, '.', '.', point);
  digits(point, 1, kMostFractionDigits, mantissa);
  b_.epsilon(whole, mantissa);
  b_.epsilon(mantissa, to);
  for (const char c : {'e', 'E'}) b_.edge(mantissa, static_cast<uint8_t>(c), static_cast<uint8_t>(c), e);
  for (const char c : {'+', '-'}) b_.edge(e, static_cast<uint8_t>(c), static_cast<uint8_t>(c), exponent);
  b_.epsilon(e, exponent);
  digits(exponent, 1, kMostExponentDigits, to);
  return number_;
}

int32_t JsonText::any_value() {
  if (value_ >= 0) return value_;
  value_ = b_.rule();
  const int32_t from = b_.start(value_), to = b_.end(value_);
  b_.literals(from, {"true", "false", "null"}, to);
  for (const int32_t rule : {string(), number(), any_object(), any_array()}) b_.call(from, rule, to);
  return value_;
}

int32_t JsonText::any_object() {
  if (object_ >= 0) return object_;
  object_ = b_.rule();
  const int32_t value = any_value(), space = white_space(), name = string();
  const int32_t open = b_.state(), first = b_.state(), key = b_.state(), colon = b_.state(), behind = b_.state(),
                next = b_.state(), comma = b_.state(), close = b_.state();
  b_.edge(b_.start(object_), '{', '{', open);
  b_.call(open, space, first);
  b_.edge(first, '}', '}', b_.end(object_));
  b_.epsilon(first, key);
  b_.call(key, name, colon);
  b_.edge(colon, ':', ':', behind);
  const int32_t at = b_.state();
  b_.call(behind, space, at);
  b_.call(at, value, next);
  b_.edge(next, ',', ',', comma);
  b_.call(comma, space, key);
  b_.call(next, space, close);
  b_.edge(close, '}', '}', b_.end(object_));
  return object_;
}

int32_t JsonText::any_array() {
  if (array_ >= 0) return array_;
  array_ = b_.rule();
  const int32_t value = any_value(), space = white_space();
  const int32_t open = b_.state(), first = b_.state(), item = b_.state(), next = b_.state(), comma = b_.state(),
                close = b_.state();
  b_.edge(b_.start(array_), '[', '[', open);
  b_.call(open, space, first);
  b_.edge(first, ']', ']', b_.end(array_));
  b_.epsilon(first, item);
  b_.call(item, value, next);
  b_.edge(next, ',', ',', comma);
  b_.call(comma, space, item);
  b_.call(next, space, close);
  b_.edge(close, ']', ']', b_.end(array_));
  return array_;
}

// A tree of the names' spellings: wherever a text leaves it, or ends where no name does, it is another name.
int32_t JsonText::name_except(const std::vector<std::string>& names) {
  const JsonSpelling spelling;
  const int32_t rule = b_.rule(), root = b_.state(), other = b_.state(), close = b_.state();
  struct Branch {
    int32_t state;
    bool name = false;
    std::map<char32_t, size_t> children;
  };
  std::vector<Branch> tree = {{.state = root}};
  for (const std::string& name : names) {
    size_t at = 0;
    for (size_t i = 0; i < name.size() && !b_.full();) {
      const tokenizer::CodePoint c = tokenizer::code_point_at(name, i);
      i += c.length;
      const auto [child, added] = tree[at].children.try_emplace(c.value, tree.size());
      const size_t next = child->second;
      if (added) {
        const int32_t from = tree[at].state;
        tree.push_back({.state = b_.state()});
        spelling.add(b_, from, {{c.value, c.value}}, tree[next].state);
      }
      at = next;
    }
    tree[at].name = true;
  }
  b_.edge(b_.start(rule), '"', '"', root);
  for (const Branch& branch : tree) {
    if (b_.full()) break;
    CodePointSet elsewhere = CodePointSet::all();
    for (const auto& [c, child] : branch.children) elsewhere = elsewhere.without({{c, c}});
    spelling.add(b_, branch.state, elsewhere, other);
    if (!branch.name) b_.epsilon(branch.state, close);
  }
  spelling.add(b_, other, CodePointSet::all(), other);
  b_.epsilon(other, close);
  b_.edge(close, '"', '"', b_.end(rule));
  return rule;
}

}  // namespace invar::grammar
