#include "runtime/chat_template/lexer.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "runtime/chat_template/text.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::jinja {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) data();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail_here(const std::string& message) { throw Failure(absl::StatusCode::kInvalidArgument, message, line_); }

  void add(TokenKind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }
  bool next_is(std::string_view text) const { return source_.substr(at_, text.size()) == text; }
  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }
  void skip_space() { advance(leading_space(source_.substr(at_))); }

  // Text up to the next tag, and the tag's beginning.
  void data() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == kNowhere || tag + 1 >= source_.size()) {
        add_data(source_.substr(at_));
        at_ = source_.size();
        return;
      }
      const char c = source_[tag + 1];
      if (c == '{' || c == '%' || c == '#') break;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    const bool signed_tag = sign == '-' || sign == '+';
    const std::string_view before = source_.substr(at_, tag - at_);
    add_data(trimmed(before, sign, kind != '{'));
    advance(before.size());
    const size_t raw = kind == '%' ? raw_tag(tag + 2 + (signed_tag ? 1 : 0), "raw", false) : kNowhere;
    if (raw != kNowhere) {
      advance(raw - at_);
      raw_data();
      return;
    }
    const int begun = line_;
    advance(signed_tag ? 3 : 2);
    if (kind == '#') return comment(begun);
    tokens_.push_back({kind == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, "", begun});
    inside(kind == '%');
  }

  void add_data(std::string_view text) {
    if (!text.empty()) add(TokenKind::kData, text);
  }

  // White space in front of a tag: all of it goes with "-", the line's beginning for blocks and comments.
  std::string_view trimmed(std::string_view text, char sign, bool strips_line) const {
    if (sign == '-') return strip(text, false, true);
    if (sign == '+' || !strips_line) return text;
    const size_t newline = text.rfind('\n');
    if (newline == kNowhere && !line_starting_) return text;
    const size_t begin = newline == kNowhere ? 0 : newline + 1;
    return leading_space(text.substr(begin)) == text.size() - begin ? text.substr(0, begin) : text;
  }

  // The end of "raw %}" or "endraw %}" that stands at `at`, or npos. What follows "-%}" is skipped with it; the newline after
  // "%}" only of endraw.
  size_t raw_tag(size_t at, std::string_view word, bool ends) const {
    at += leading_space(source_.substr(std::min(at, source_.size())));
    if (source_.substr(std::min(at, source_.size()), word.size()) != word) return kNowhere;
    at += word.size();
    at += leading_space(source_.substr(at));
    const std::string_view rest = source_.substr(at);
    if (rest.starts_with("-%}")) return at + 3 + leading_space(rest.substr(3));
    if (ends && rest.starts_with("+%}")) return at + 3;
    if (rest.starts_with("%}")) return at + 2 + (ends && rest.starts_with("%}\n") ? 1 : 0);
    return kNowhere;
  }

  void raw_data() {
    line_starting_ = at_ > 0 && source_[at_ - 1] == '\n';
    for (size_t tag = at_; (tag = source_.find("{%", tag)) != kNowhere; ++tag) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      const size_t end = raw_tag(tag + 2 + (sign == '-' || sign == '+' ? 1 : 0), "endraw", true);
      if (end == kNowhere) continue;
      add_data(trimmed(source_.substr(at_, tag - at_), sign, true));
      advance(end - at_);
      line_starting_ = source_[at_ - 1] == '\n';
      return;
    }
    fail_here("missing end of raw block");
  }

  void comment(int begun) {
    const size_t end = source_.find("#}", at_);
    if (end == kNowhere) {
      line_ = begun;
      fail_here("missing end of comment");
    }
    const char sign = end > at_ ? source_[end - 1] : ' ';
    advance(end + 2 - at_);
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && next_is("\n")) {
      advance(1);
    }
    line_starting_ = source_[at_ - 1] == '\n';
  }

  // The inside of {{ }} or {% %}, to its end.
  void inside(bool block) {
    std::string open;  // brackets waiting for their end
    const std::string_view end = block ? "%}" : "}}";
    while (at_ < source_.size()) {
      if (open.empty() && tag_end(block, end)) return;
      if (const size_t space = leading_space(source_.substr(at_)); space > 0) {
        advance(space);
        continue;
      }
      const char c = source_[at_];
      if (absl::ascii_isdigit(static_cast<unsigned char>(c))) {
        number();
      } else if (c == '"' || c == '\'') {
        text_literal(c);
      } else if (!name()) {
        operation(open);
      }
    }
  }

  bool tag_end(bool block, std::string_view end) {
    const size_t sign = next_is("-") || (block && next_is("+")) ? 1 : 0;
    if (source_.substr(at_ + sign, 2) != end) return false;
    const char first = source_[at_];
    add(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, "");
    advance(sign + 2);
    if (first == '-') {
      skip_space();
    } else if (block && first != '+' && next_is("\n")) {
      advance(1);
    }
    line_starting_ = source_[at_ - 1] == '\n';
    return true;
  }

  bool name() {
    size_t end = at_;
    while (end < source_.size()) {
      const auto c = tokenizer::code_point_at(source_, end);
      if (!tokenizer::is_word(c.value)) break;
      end += static_cast<size_t>(c.length);
    }
    if (end == at_) return false;
    bool known = false;
    const std::string_view word = source_.substr(at_, end - at_);
    if (!is_class(word, "isidentifier", known)) fail_here(concat("invalid character in identifier ", word));
    add(TokenKind::kName, word);
    at_ = end;
    return true;
  }

  // Digits that single underscores may part.
  size_t digits(size_t at) const {
    const auto digit = [&](size_t i) {
      return i < source_.size() && absl::ascii_isdigit(static_cast<unsigned char>(source_[i]));
    };
    while (digit(at) || (at > 0 && at < source_.size() && source_[at] == '_' && digit(at - 1) && digit(at + 1))) ++at;
    return at;
  }

  void number() {
    const auto take = [&](size_t end, TokenKind kind) {
      std::string written;
      for (const char c : source_.substr(at_, end - at_)) {
        if (c != '_') written += c;
      }
      add(kind, written);
      at_ = end;
    };
    const auto at = [&](size_t i) {
      return i < source_.size() ? absl::ascii_tolower(static_cast<unsigned char>(source_[i])) : '\0';
    };
    const size_t whole = digits(at_);
    size_t end = whole;
    // A number behind a dot (x.1.2) is never a float.
    if (at_ == 0 || source_[at_ - 1] != '.') {
      if (at(end) == '.' && absl::ascii_isdigit(static_cast<unsigned char>(at(end + 1)))) end = digits(end + 1);
      if (at(end) == 'e') {
        const size_t sign = at(end + 1) == '+' || at(end + 1) == '-' ? 1 : 0;
        if (absl::ascii_isdigit(static_cast<unsigned char>(at(end + 1 + sign)))) end = digits(end + 1 + sign);
      }
      if (end > whole) return take(end, TokenKind::kFloat);
    }
    if (at(at_) == '0') {
      const char base = at(at_ + 1);
      const auto fits = [&](char c) {
        return base == 'x' ? absl::ascii_isxdigit(static_cast<unsigned char>(c)) : c >= '0' && c <= (base == 'b' ? '1' : '7');
      };
      if (base == 'x' || base == 'o' || base == 'b') {
        end = at_ + 2;
        while (fits(at(end)) || (at(end) == '_' && fits(at(end + 1)))) ++end;
        if (end > at_ + 2) return take(end, TokenKind::kInteger);
      }
      // Only zeros may follow a zero: 007 is 00 and 7, which no expression allows.
      for (end = at_ + 1; at(end) == '0' || (at(end) == '_' && at(end + 1) == '0');) ++end;
      return take(end, TokenKind::kInteger);
    }
    take(whole, TokenKind::kInteger);
  }

  void text_literal(char quote) {
    const int begun = line_;
    std::string value;
    size_t at = at_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] == '\\' && at + 1 < source_.size()) {
        at = escape(at + 1, value);
      } else {
        value += source_[at++];
      }
    }
    if (at >= source_.size()) fail_here("a string has no end");
    tokens_.push_back({TokenKind::kText, std::move(value), begun});
    advance(at + 1 - at_);
  }

  // Python's escapes; `at` is behind the backslash. Unknown ones stay as they are written.
  size_t escape(size_t at, std::string& value) {
    const char c = source_[at];
    constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
    if (const size_t i = kLetters.find(c); i != kNowhere) {
      value += kMeanings[i];
      return at + 1;
    }
    if (c == '\n') return at + 1;
    if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      size_t end = at;
      while (end < at + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7')
        code = code * 8 + static_cast<uint32_t>(source_[end++] - '0');
      tokenizer::append_code_point(value, code);
      return end;
    }
    if (c == 'N') fail_here("a string has \\N{...}: characters by name are not supported");
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length == 0) {
      value += '\\';
      return at;
    }
    uint64_t code = 0;
    for (size_t i = 1; i <= length; ++i) {
      const unsigned char digit = at + i < source_.size() ? static_cast<unsigned char>(source_[at + i]) : ' ';
      if (!absl::ascii_isxdigit(digit))
        fail_here(concat("a string has \\", std::string(1, c), " without ", length, " hexadecimal digits"));
      code = code * 16 + static_cast<uint64_t>(digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail_here("a string has an escape that is no character");
    tokenizer::append_code_point(value, static_cast<char32_t>(code));
    return at + 1 + length;
  }

  void operation(std::string& open) {
    constexpr std::array<std::string_view, 24> kOperators = {"==", "!=", ">=", "<=", "//", "**", "+", "-", "/", "*", "%", "~",
                                                             "[",  "]",  "(",  ")",  "{",  "}",  ">", "<", "=", ".", ":", "|"};
    std::string_view found;
    for (const std::string_view op : kOperators) {
      if (next_is(op)) {
        found = op;
        break;
      }
    }
    if (found.empty() && (next_is(",") || next_is(";"))) found = source_.substr(at_, 1);
    if (found.empty()) {
      const auto c = tokenizer::code_point_at(source_, at_);
      fail_here(concat("unexpected character ", source_.substr(at_, static_cast<size_t>(c.length))));
    }
    if (found == "(" || found == "[" || found == "{") {
      open += found == "(" ? ')' : found == "[" ? ']' : '}';
    } else if (found == ")" || found == "]" || found == "}") {
      if (open.empty()) fail_here(concat("unexpected '", found, "'"));
      if (open.back() != found[0]) fail_here(concat("unexpected '", found, "', expected '", open.substr(open.size() - 1), "'"));
      open.pop_back();
    }
    add(TokenKind::kOperator, found);
    at_ += found.size();
  }

  std::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the text at at_ begins a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

std::string normalise_source(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "template text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "the end of the block";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kText:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return concat("'", token.text, "'");
  }
}

}  // namespace invar::jinja
