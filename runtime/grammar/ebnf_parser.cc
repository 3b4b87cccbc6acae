#include "runtime/grammar/ebnf_parser.h"

#include <algorithm>
#include <cctype>
#include <unordered_map>
#include <utility>

#include "runtime/model_config/message.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

constexpr int kDeepest = 100;
constexpr int64_t kMostRepeats = 65535;

bool begins_name(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool in_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-'; }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<EbnfGrammar> run() {
    if (text_.find("::=") == std::string_view::npos)
      return absl::InvalidArgumentError(
          "has no rule (name ::= ...); grammars in Lark's form and others are not supported, write EBNF: root ::= ...");
    skip();
    while (more()) {
      rule();
      skip();
    }
    for (const auto& [index, at] : used_)
      if (status_.ok() && !defined_[index])
        fail(message("the rule ", grammar_.rules[index].name, " is used and not defined"), at);
    if (!status_.ok()) return status_;
    const auto root = index_of_.find("root");
    if (root == index_of_.end()) return absl::InvalidArgumentError("has no rule root: answers begin with it");
    grammar_.root = root->second;
    return std::move(grammar_);
  }

 private:
  bool more() const { return status_.ok() && at_ < text_.size(); }
  bool next_is(std::string_view s) const { return text_.substr(at_).starts_with(s); }
  bool take(std::string_view s) {
    if (!next_is(s)) return false;
    at_ += s.size();
    return true;
  }
  void fail(std::string_view what, size_t at) {
    if (!status_.ok()) return;
    const std::string_view before = text_.substr(0, at);
    const size_t line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t last = before.rfind('\n');
    status_ = absl::InvalidArgumentError(
        message("line ", line, ", column ", 1 + before.size() - (last == std::string_view::npos ? 0 : last + 1), ": ", what));
  }

  // Space, line ends and comments mean nothing anywhere: a rule ends where the next one begins.
  void skip() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        ++at_;
      } else {
        return;
      }
    }
  }

  std::string_view name() {
    const size_t begin = at_;
    if (more() && begins_name(text_[at_]))
      while (at_ < text_.size() && in_name(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  // A name and ::= stand here.
  bool at_rule() {
    const size_t begin = at_;
    bool is = !name().empty();
    skip();
    is = is && next_is("::=");
    at_ = begin;
    return is;
  }

  int32_t rule_of(std::string_view name) {
    const auto [found, added] = index_of_.try_emplace(std::string(name), static_cast<int32_t>(grammar_.rules.size()));
    if (added) {
      grammar_.rules.push_back({std::string(name), {}});
      defined_.push_back(false);
    }
    return found->second;
  }

  void rule() {
    const size_t begin = at_;
    const std::string_view called = name();
    skip();
    if (called.empty() || !take("::=")) return fail("a rule (name ::= ...) is wanted", begin);
    const int32_t index = rule_of(called);
    if (defined_[index]) return fail(message("the rule ", called, " is defined twice"), begin);
    defined_[index] = true;
    EbnfNode body = choice(0);
    if (more() && !at_rule()) fail(next_is(")") ? "an unmatched )" : "a rule (name ::= ...) is wanted", at_);
    grammar_.rules[index].body = std::move(body);
  }

  EbnfNode choice(int depth) {
    if (depth > kDeepest) fail(message("groups nested deeper than ", kDeepest), at_);
    EbnfNode all{.kind = EbnfNode::Kind::kChoice};
    do {
      all.parts.push_back(sequence(depth));
      skip();
    } while (status_.ok() && take("|"));
    return all.parts.size() == 1 ? EbnfNode(std::move(all.parts[0])) : all;
  }

  EbnfNode sequence(int depth) {
    EbnfNode all;
    for (skip(); more() && text_[at_] != '|' && text_[at_] != ')' && !at_rule(); skip()) all.parts.push_back(repeated(depth));
    return all.parts.size() == 1 ? EbnfNode(std::move(all.parts[0])) : all;
  }

  EbnfNode repeated(int depth) {
    EbnfNode node = element(depth);
    for (int count = 0;; ++count) {
      const size_t before = at_;
      skip();
      const size_t at = at_;
      int64_t min = 0, max = -1;
      if (!more()) return node;
      if (take("*")) {
      } else if (take("+")) {
        min = 1;
      } else if (take("?")) {
        max = 1;
      } else if (!counts(&min, &max)) {
        at_ = before;
        return node;
      }
      if (count >= 4) fail("more than four repetitions of one thing", at);
      EbnfNode repeat{.kind = EbnfNode::Kind::kRepeat, .min = min, .max = max};
      repeat.parts.push_back(std::move(node));
      node = std::move(repeat);
    }
  }

  // {m}, {m,}, {m,n}
  bool counts(int64_t* min, int64_t* max) {
    const size_t begin = at_;
    if (!take("{")) return false;
    const auto number = [&](int64_t* out) {
      skip();
      const size_t first = at_;
      for (*out = 0; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) && *out <= kMostRepeats; ++at_)
        *out = *out * 10 + (text_[at_] - '0');
      if (*out > kMostRepeats) fail(message("a repetition of more than ", kMostRepeats), begin);
      const bool any = at_ > first;
      skip();
      return any;
    };
    bool good = number(min);
    *max = *min;
    if (good && take(",") && !number(max)) *max = -1;
    good = good && take("}");
    if (!good) fail("a { that begins none of {m}, {m,} and {m,n}", begin);
    if (good && *max >= 0 && *min > *max)
      fail(message("a repetition with its numbers out of order, {", *min, ",", *max, "}"), begin);
    return status_.ok();
  }

  EbnfNode element(int depth) {
    const size_t begin = at_;
    const char c = text_[at_];
    if (c == '"') return literal();
    if (c == '[') return EbnfNode{.kind = EbnfNode::Kind::kClass, .characters = bracket()};
    if (take(".")) return EbnfNode{.kind = EbnfNode::Kind::kClass, .characters = CodePointSet::all()};
    if (take("(")) {
      skip();
      if (next_is("=") || next_is("?=") || next_is("!")) fail("lookahead assertions are not supported", begin);
      EbnfNode inside = choice(depth + 1);
      if (status_.ok() && !take(")")) fail("a ( that is not closed", begin);
      return inside;
    }
    if (begins_name(c)) {
      const std::string_view called = name();
      if (called == "TagDispatch" || called == "Token") fail(message(called, "(...) is not supported"), begin);
      const int32_t index = rule_of(called);
      used_.emplace_back(index, begin);
      return EbnfNode{.kind = EbnfNode::Kind::kRule, .rule = index};
    }
    if (c == '<' || c == '!') {
      fail("tokens (<name>, <[id]>) are not supported; write their text", begin);
    } else if (c == '\'') {
      fail("text in single quotes is not supported; write \"...\"", begin);
    } else if (c == '/') {
      fail("regular expressions are not supported here; use guided_regex", begin);
    } else if (c == '*' || c == '+' || c == '?' || c == '{') {
      fail("a repetition of nothing", begin);
    } else {
      const tokenizer::CodePoint p = tokenizer::code_point_at(text_, at_);
      fail(message("\"", text_.substr(begin, static_cast<size_t>(p.length)), "\" begins nothing that a grammar has"), begin);
    }
    return {};
  }

  EbnfNode literal() {
    const size_t begin = at_++;
    EbnfNode node{.kind = EbnfNode::Kind::kText};
    while (true) {
      if (!more() || text_[at_] == '\n') {
        fail("a \" that is not closed", begin);
        return node;
      }
      if (take("\"")) return node;
      tokenizer::append_code_point(node.text, character());
    }
  }

  CodePointSet bracket() {
    const size_t begin = at_++;
    const bool negated = take("^");
    CodePointSet set;
    while (true) {
      if (!more() || text_[at_] == '\n') {
        fail("a [ that is not closed", begin);
        return {};
      }
      if (take("]")) break;
      const size_t at = at_;
      const char32_t low = character();
      char32_t high = low;
      if (next_is("-") && text_.substr(at_).size() > 1 && text_[at_ + 1] != ']') {
        ++at_;
        high = character();
      }
      if (!status_.ok()) return {};
      if (low > high) fail("a range of characters that is none", at);
      set.add(low, high);
    }
    if (set.empty()) fail("an empty class of characters", begin);
    return negated ? set.complement() : set;
  }

  // One, as it stands or escaped.
  char32_t character() {
    const size_t begin = at_;
    if (text_[at_] != '\\') {
      const tokenizer::CodePoint c = tokenizer::code_point_at(text_, at_);
      at_ += static_cast<size_t>(c.length);
      return c.value;
    }
    if (++at_ >= text_.size()) {
      fail("a \\ at the end", begin);
      return 0;
    }
    const char c = text_[at_++];
    switch (c) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'b':
        return '\b';
      case 'a':
        return '\a';
      case '0':
        return 0;
      case 'x':
        return hex(2, begin);
      case 'u':
        return hex(4, begin);
      case 'U':
        return hex(8, begin);
      default:
        if (!std::ispunct(static_cast<unsigned char>(c))) fail("an escape that is not supported", begin);
        return static_cast<unsigned char>(c);
    }
  }
  char32_t hex(size_t digits, size_t begin) {
    uint64_t value = 0;
    size_t count = 0;
    for (; count < digits && at_ < text_.size() && std::isxdigit(static_cast<unsigned char>(text_[at_])); ++at_, ++count) {
      const char c = text_[at_];
      value = value * 16 + static_cast<uint64_t>(std::isdigit(static_cast<unsigned char>(c)) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (count == digits && value <= kLastCodePoint && (value < 0xd800 || value > 0xdfff)) return static_cast<char32_t>(value);
    fail("an escape that is no character", begin);
    return 0;
  }

  const std::string_view text_;
  size_t at_ = 0;
  absl::Status status_;
  EbnfGrammar grammar_;
  std::vector<bool> defined_;
  std::vector<std::pair<int32_t, size_t>> used_;  // rules, and where
  std::unordered_map<std::string, int32_t> index_of_;
};

}  // namespace

absl::StatusOr<EbnfGrammar> parse_ebnf(std::string_view text) {
  if (const size_t at = tokenizer::first_invalid_utf8(text); at != std::string_view::npos)
    return absl::InvalidArgumentError(message("not valid UTF-8 at byte ", at));
  return Parser(text).run();
}

}  // namespace invar::grammar
