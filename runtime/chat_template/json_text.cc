#include "runtime/chat_template/json_text.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "runtime/chat_template/operators.h"
#include "runtime/chat_template/parameters.h"
#include "runtime/chat_template/show.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

class Writer {
 public:
  Writer(Interpreter& run, const JsonStyle& style) : run_(run), style_(style) {}

  std::string write(const Value& value) {
    any(value);
    return std::move(out_);
  }

 private:
  void any(const Value& value) {
    const auto held = run_.deeper();
    run_.budget().bytes(8);
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        return;
      case Kind::kBool:
        out_ += value.boolean() ? "true" : "false";
        return;
      case Kind::kInteger:
        out_ += integer_text(value.integral());
        return;
      case Kind::kFloat:
        out_ += number(value.number());
        return;
      case Kind::kText:
        return text(value.text());
      case Kind::kSequence:
        if (value.sequence()->shape == Shape::kList || value.sequence()->shape == Shape::kTuple)
          return list(value.sequence()->items);
        break;
      case Kind::kDict:
        return dict(value.dict());
      default:
        break;
    }
    fail("Object of type ", type_name(value), " is not JSON serializable");
  }

  static std::string number(double value) {
    return std::isnan(value) ? "NaN" : std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : float_text(value);
  }

  void text(std::string_view text) {
    run_.budget().bytes(text.size());
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const auto c = tokenizer::code_point_at(text, at);
      const std::string_view bytes = text.substr(at, static_cast<size_t>(c.length));
      at += bytes.size();
      switch (c.value) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\f':
          out_ += "\\f";
          break;
        case '\b':
          out_ += "\\b";
          break;
        default:
          if (c.value >= 0x20 && (c.value < 0x7F || !style_.ensure_ascii)) {
            out_ += bytes;
          } else if (c.value < 0x10000) {
            absl::StrAppendFormat(&out_, "\\u%04x", static_cast<uint32_t>(c.value));
          } else {
            const uint32_t rest = static_cast<uint32_t>(c.value) - 0x10000;
            absl::StrAppendFormat(&out_, "\\u%04x\\u%04x", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
          }
      }
    }
    out_ += '"';
  }

  void new_line() {
    if (!style_.indent) return;
    run_.budget().bytes(1 + style_.indent->size() * static_cast<size_t>(level_));
    out_ += '\n';
    for (int i = 0; i < level_; ++i) out_ += *style_.indent;
  }

  void separate(bool first) {
    if (!first) {
      run_.budget().bytes(style_.item_separator.size());
      out_ += style_.item_separator;
    }
    new_line();
  }

  void list(const Items& items) {
    if (items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      separate(i == 0);
      any(items[i]);
    }
    --level_;
    new_line();
    out_ += ']';
  }

  void key(const Value& name) {
    switch (name.kind()) {
      case Kind::kText:
        return text(name.text());
      case Kind::kNone:
        return text("null");
      case Kind::kBool:
        return text(name.boolean() ? "true" : "false");
      case Kind::kInteger:
        return text(integer_text(name.integral()));
      case Kind::kFloat:
        return text(number(name.number()));
      default:
        fail("keys must be str, int, float, bool or None, not ", type_name(name));
    }
  }

  void dict(const Dict& dict) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less(run_, a->first, b->first); });
    }
    out_ += '{';
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      separate(i == 0);
      key(entries[i]->first);
      run_.budget().bytes(style_.key_separator.size());
      out_ += style_.key_separator;
      any(entries[i]->second);
    }
    --level_;
    new_line();
    out_ += '}';
  }

  Interpreter& run_;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

std::string to_json(Interpreter& run, const Value& value, const JsonStyle& style) { return Writer(run, style).write(value); }

Value tojson(Interpreter& run, const Value& value, const Arguments& arguments) {
  const Parameters given("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = given.flag(0);
  style.sort_keys = given.flag(3);
  if (given[1].is_text()) {
    style.indent = given.text(1);
  } else if (!given[1].is_none()) {
    const int64_t spaces = given.integer(1, 0);
    if (spaces > 1000) fail("tojson(): indent ", spaces, " is larger than 1000");
    style.indent = std::string(static_cast<size_t>(std::max<int64_t>(spaces, 0)), ' ');
  }
  if (style.indent) style.item_separator = ",";
  if (!given[2].is_none()) {
    const Items both = items_of(run.budget(), given[2]);
    if (both.size() != 2 || !both[0].is_text() || !both[1].is_text()) fail("tojson(): separators are not two strings");
    style.item_separator = both[0].text();
    style.key_separator = both[1].text();
  }
  return Value(to_json(run, value, style));
}

}  // namespace invar::jinja
