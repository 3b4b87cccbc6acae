#include "runtime/grammar/regex.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "runtime/model_config/message.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::grammar {
namespace {

constexpr int kDeepest = 100;
constexpr int64_t kMostRepeats = 65535;  // as PCRE

const CodePointSet kDigits = {{'0', '9'}};
const CodePointSet kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePointSet kSpace = {{'\t', '\r'}, {' ', ' '}};

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  absl::StatusOr<Regex> run() {
    Regex r = alternatives(0);
    if (status_.ok() && at_ < text_.size()) fail("an unmatched )", at_);
    if (!status_.ok()) return status_;
    return r;
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
    if (status_.ok()) status_ = absl::InvalidArgumentError(message(what, " at byte ", at));
  }
  void unsupported(std::string_view what, size_t at) { fail(message(what, " are not supported, used"), at); }

  Regex alternatives(int depth) {
    if (depth > kDeepest) fail(message("groups nested deeper than ", kDeepest), at_);
    Regex all{.kind = Regex::Kind::kAlternate};
    do {
      all.parts.push_back(sequence(depth));
    } while (status_.ok() && take("|"));
    return all.parts.size() == 1 ? Regex(std::move(all.parts[0])) : all;
  }

  Regex sequence(int depth) {
    Regex all{.kind = Regex::Kind::kConcat};
    while (more() && text_[at_] != '|' && text_[at_] != ')') all.parts.push_back(repeated(depth));
    if (all.parts.empty()) return {};
    return all.parts.size() == 1 ? Regex(std::move(all.parts[0])) : all;
  }

  Regex repeated(int depth) {
    const size_t begin = at_;
    Regex r = atom(depth);
    for (int count = 0; more(); ++count) {
      int64_t min = 0, max = -1;
      const size_t at = at_;
      if (take("*")) {
      } else if (take("+")) {
        min = 1;
      } else if (take("?")) {
        max = 1;
      } else if (!counts(&min, &max)) {
        break;
      }
      if (count > 0) fail("a quantifier behind a quantifier", at);
      if (text_[begin] == '^' || text_[begin] == '$') fail("a quantifier behind an anchor", at);
      if (next_is("+")) unsupported("possessive quantifiers", at_);
      take("?");  // lazy: the same texts match
      if (max >= 0 && min > max) fail(message("a quantifier with its numbers out of order, {", min, ",", max, "},"), begin);
      Regex repeat{.kind = Regex::Kind::kRepeat, .min = min, .max = max};
      repeat.parts.push_back(std::move(r));
      r = std::move(repeat);
    }
    return r;
  }

  // {m}, {m,}, {m,n}; a brace that begins nothing of the kind is refused, because dialects disagree on it.
  bool counts(int64_t* min, int64_t* max) {
    if (!next_is("{")) return false;
    const size_t begin = at_++;
    const auto number = [&](int64_t* out) {
      const size_t first = at_;
      for (*out = 0; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) && *out <= kMostRepeats; ++at_)
        *out = *out * 10 + (text_[at_] - '0');
      if (*out > kMostRepeats) fail(message("a repetition of more than ", kMostRepeats), begin);
      return at_ > first;
    };
    if (!number(min)) {
      fail("a { that is no quantifier (write \\{)", begin);
      return false;
    }
    *max = *min;
    if (take(",") && !number(max)) *max = -1;
    if (!take("}")) fail("a { that is no quantifier (write \\{)", begin);
    return status_.ok();
  }

  Regex of_class(CodePointSet set) { return Regex{.kind = Regex::Kind::kClass, .characters = std::move(set)}; }

  Regex atom(int depth) {
    const size_t begin = at_;
    switch (text_[at_]) {
      case '(':
        return group(depth);
      case '[':
        return of_class(bracket());
      case '.':
        ++at_;
        return of_class(CodePointSet{{'\n', '\n'}}.complement());
      case '^':
        ++at_;
        return Regex{.kind = Regex::Kind::kBegin};
      case '$':
        ++at_;
        return Regex{.kind = Regex::Kind::kEnd};
      case '*':
      case '+':
      case '?':
        fail("a quantifier with nothing before it", begin);
        return {};
      case '{':
        fail("a { that is no quantifier (write \\{)", begin);
        return {};
      case '\\':
        return of_class(escape(false));
      default: {
        const tokenizer::CodePoint c = tokenizer::code_point_at(text_, at_);
        at_ += c.length;
        return of_class({{c.value, c.value}});
      }
    }
  }

  Regex group(int depth) {
    const size_t begin = at_++;
    if (take("?")) {
      if (next_is("=") || next_is("!")) unsupported("lookahead assertions", begin);
      if (next_is("<=") || next_is("<!")) unsupported("lookbehind assertions", begin);
      if (next_is(">")) unsupported("atomic groups", begin);
      if (next_is("P=") || next_is("P>") || next_is("R") || next_is("&")) unsupported("backreferences and recursion", begin);
      if (next_is("(")) unsupported("conditional groups", begin);
      if (next_is("#")) unsupported("comments", begin);
      if (take("P<") || take("<") || take("'")) {
        const size_t name = at_;
        while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) ++at_;
        if (at_ == name || !(take(">") || take("'"))) fail("a group name that does not end", begin);
      } else if (status_.ok() && !take(":")) {
        unsupported("inline flags", begin);
      }
    } else if (next_is("*")) {
      unsupported("verbs", begin);
    }
    if (!status_.ok()) return {};
    Regex inside = alternatives(depth + 1);
    if (status_.ok() && !take(")")) fail("a ( that is not closed", begin);
    return inside;
  }

  CodePointSet bracket() {
    const size_t begin = at_++;
    const bool negated = take("^");
    CodePointSet set;
    for (bool first = true;; first = false) {
      if (!more()) {
        fail("a [ that is not closed", begin);
        return {};
      }
      if (next_is("]") && !first) break;
      if (next_is("]")) {
        fail("an empty class or a ] at its begin (write \\])", begin);
        return {};
      }
      if (next_is("[:") || next_is("[.") || next_is("[=")) unsupported("POSIX classes", at_);
      if (next_is("&&") || next_is("--") || next_is("||") || next_is("~~")) unsupported("set operations", at_);
      const size_t at = at_;
      const CodePointSet low = one_of_class();
      if (!status_.ok()) return {};
      const bool range = next_is("-") && text_.substr(at_).size() > 1 && text_[at_ + 1] != ']';
      if (!range) {
        set.add(low);
        continue;
      }
      ++at_;
      const CodePointSet high = one_of_class();
      if (!status_.ok()) return {};
      const auto single = [](const CodePointSet& s) {
        return s.ranges().size() == 1 && s.ranges()[0].first == s.ranges()[0].last;
      };
      if (!single(low) || !single(high) || low.ranges()[0].first > high.ranges()[0].first) {
        fail("a range of characters that is none", at);
        return {};
      }
      set.add(low.ranges()[0].first, high.ranges()[0].first);
    }
    ++at_;
    return negated ? set.complement() : set;
  }

  CodePointSet one_of_class() {
    if (text_[at_] == '\\') return escape(true);
    const tokenizer::CodePoint c = tokenizer::code_point_at(text_, at_);
    at_ += c.length;
    return {{c.value, c.value}};
  }

  // `digits` of them; 0 = up to a closing brace.
  bool hex(size_t digits, char32_t* out) {
    *out = 0;
    size_t count = 0;
    for (; at_ < text_.size() && (digits == 0 || count < digits); ++at_, ++count) {
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (!std::isxdigit(c) || *out > kLastCodePoint) break;
      *out = *out * 16 + static_cast<char32_t>(std::isdigit(c) ? c - '0' : std::tolower(c) - 'a' + 10);
    }
    return digits == 0 ? count > 0 && take("}") : count == digits;
  }

  CodePointSet escape(bool in_class) {
    const size_t begin = at_++;
    if (at_ >= text_.size()) {
      fail("a \\ at the end", begin);
      return {};
    }
    const char c = text_[at_++];
    const auto one = [](char32_t value) { return CodePointSet{{value, value}}; };
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return kDigits.complement();
      case 'w':
        return kWord;
      case 'W':
        return kWord.complement();
      case 's':
        return kSpace;
      case 'S':
        return kSpace.complement();
      case 'n':
        return one('\n');
      case 't':
        return one('\t');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'x':
      case 'u': {
        char32_t value;
        const bool braces = take("{");
        bool good = hex(braces ? 0 : c == 'x' ? 2 : 4, &value);
        if (good && !braces && value >= 0xd800 && value < 0xdc00 && take("\\u")) {  // the halves of one character
          char32_t low;
          good = hex(4, &low) && low >= 0xdc00 && low < 0xe000;
          value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
        }
        if (!good || value > kLastCodePoint || (value >= 0xd800 && value < 0xe000)) {
          fail("an escape that is no character", begin);
          return {};
        }
        return one(value);
      }
      case 'b':
      case 'B':
        if (in_class && c == 'b') return one('\b');
        unsupported("word boundaries", begin);
        return {};
      case 'p':
      case 'P':
        unsupported("Unicode properties (\\p)", begin);
        return {};
      case 'A':
      case 'Z':
      case 'z':
      case 'G':
        unsupported("anchors other than ^ and $", begin);
        return {};
      case '0':
        if (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) unsupported("octal escapes", begin);
        return one(0);
      default:
        break;
    }
    if (std::isdigit(static_cast<unsigned char>(c)) || c == 'k' || c == 'g') {
      unsupported("backreferences", begin);
    } else if (std::isalpha(static_cast<unsigned char>(c)) || static_cast<unsigned char>(c) >= 0x80) {
      unsupported(
          message("the escape \\", std::string(1, std::isalpha(static_cast<unsigned char>(c)) ? c : '?'), " and its like"),
          begin);
    }
    return one(static_cast<unsigned char>(c));
  }

  std::string_view text_;
  size_t at_ = 0;
  absl::Status status_;
};

bool has_anchor(const Regex& r) {
  return r.kind == Regex::Kind::kBegin || r.kind == Regex::Kind::kEnd || std::any_of(r.parts.begin(), r.parts.end(), has_anchor);
}

bool nullable(const Regex& r) {
  switch (r.kind) {
    case Regex::Kind::kClass:
      return false;
    case Regex::Kind::kConcat:
      return std::all_of(r.parts.begin(), r.parts.end(), nullable);
    case Regex::Kind::kAlternate:
      return std::any_of(r.parts.begin(), r.parts.end(), nullable);
    case Regex::Kind::kRepeat:
      return r.min == 0 || nullable(r.parts[0]);
    default:
      return true;
  }
}

// Anchors ask whether something was taken before, or will be. So a place in the text is a set of states by what is known there:
// nothing was taken; something was; nothing more may be, and before that nothing or something was.
struct Place {
  static constexpr int kKinds = 4;
  enum Kind { kBegun, kInside, kOverEmpty, kOver };
  int32_t states[kKinds];
};

class Adder {
 public:
  Adder(NetworkBuilder& builder, const Spelling& spelling) : b_(builder), spelling_(spelling) {}

  void plain(const Regex& r, int32_t from, int32_t to) {
    switch (r.kind) {
      case Regex::Kind::kClass:
        return spelling_.add(b_, from, r.characters, to);
      case Regex::Kind::kConcat:
        for (size_t i = 0; i < r.parts.size() && !b_.full(); ++i) {
          const int32_t next = i + 1 == r.parts.size() ? to : b_.state();
          plain(r.parts[i], from, next);
          from = next;
        }
        return;
      case Regex::Kind::kAlternate:
        for (const Regex& part : r.parts) {
          if (b_.full()) return;
          const int32_t begin = b_.state();  // its own: a loop inside must not lead into the others
          b_.epsilon(from, begin);
          plain(part, begin, to);
        }
        return;
      case Regex::Kind::kRepeat:
        return b_.repeat(from, r.min, r.max, nullable(r.parts[0]), to, [&](int32_t a, int32_t z) { plain(r.parts[0], a, z); });
      default:
        return b_.epsilon(from, to);
    }
  }

  Place place() {
    Place p;
    for (int32_t& s : p.states) s = b_.state();
    return p;
  }
  void join(const Place& from, const Place& to) {
    for (int k = 0; k < Place::kKinds; ++k) b_.epsilon(from.states[k], to.states[k]);
  }

  void anchored(const Regex& r, const Place& from, const Place& to) {
    if (b_.full()) return;
    switch (r.kind) {
      case Regex::Kind::kEmpty:
        return join(from, to);
      case Regex::Kind::kClass:
        spelling_.add(b_, from.states[Place::kBegun], r.characters, to.states[Place::kInside]);
        return spelling_.add(b_, from.states[Place::kInside], r.characters, to.states[Place::kInside]);
      case Regex::Kind::kBegin:
        b_.epsilon(from.states[Place::kBegun], to.states[Place::kBegun]);
        return b_.epsilon(from.states[Place::kOverEmpty], to.states[Place::kOverEmpty]);
      case Regex::Kind::kEnd:
        b_.epsilon(from.states[Place::kBegun], to.states[Place::kOverEmpty]);
        b_.epsilon(from.states[Place::kOverEmpty], to.states[Place::kOverEmpty]);
        b_.epsilon(from.states[Place::kInside], to.states[Place::kOver]);
        return b_.epsilon(from.states[Place::kOver], to.states[Place::kOver]);
      case Regex::Kind::kConcat: {
        Place at = from;
        for (size_t i = 0; i < r.parts.size(); ++i) {
          const Place next = i + 1 == r.parts.size() ? to : place();
          anchored(r.parts[i], at, next);
          at = next;
        }
        return;
      }
      case Regex::Kind::kAlternate:
        for (const Regex& part : r.parts) {
          const Place begin = place();
          join(from, begin);
          anchored(part, begin, to);
        }
        return;
      case Regex::Kind::kRepeat: {
        Place at = place();
        join(from, at);
        const int64_t copies = r.max < 0 ? r.min : r.max;
        for (int64_t i = 0; i < copies && !b_.full(); ++i) {
          if (i >= r.min) join(at, to);
          const Place next = place();
          anchored(r.parts[0], at, next);
          at = next;
        }
        if (r.max < 0) anchored(r.parts[0], at, at);
        return join(at, to);
      }
    }
  }

 private:
  NetworkBuilder& b_;
  const Spelling& spelling_;
};

}  // namespace

absl::StatusOr<Regex> parse_regex(std::string_view pattern) {
  if (const size_t at = tokenizer::first_invalid_utf8(pattern); at != std::string_view::npos)
    return absl::InvalidArgumentError(message("not valid UTF-8 at byte ", at));
  return Parser(pattern).run();
}

void Utf8Spelling::add(NetworkBuilder& builder, int32_t from, const CodePointSet& set, int32_t to) const {
  builder.sequences(from, utf8_sequences(set), to);
}

void add_regex(NetworkBuilder& builder, const Spelling& spelling, const Regex& regex, bool search, int32_t from, int32_t to) {
  Adder adder(builder, spelling);
  const Regex any{.kind = Regex::Kind::kClass, .characters = CodePointSet::all()};
  // ^ at the begin and $ at the end of the whole, by far the most usual place, need no bookkeeping.
  Regex r = regex;
  if (r.kind != Regex::Kind::kConcat) {
    Regex whole{.kind = Regex::Kind::kConcat};
    whole.parts.push_back(std::move(r));
    r = std::move(whole);
  }
  bool begin = !search, end = !search;
  while (!r.parts.empty() && r.parts.front().kind == Regex::Kind::kBegin) begin = true, r.parts.erase(r.parts.begin());
  while (!r.parts.empty() && r.parts.back().kind == Regex::Kind::kEnd) end = true, r.parts.pop_back();
  if (r.parts.empty()) r = {};
  if (!has_anchor(r)) {
    const int32_t first = builder.state(), last = builder.state();
    builder.epsilon(from, first);
    if (!begin) adder.plain(any, first, first);
    const int32_t inner = builder.state(), outer = builder.state();
    builder.epsilon(first, inner);
    adder.plain(r, inner, outer);
    builder.epsilon(outer, last);
    if (!end) adder.plain(any, last, last);
    return builder.epsilon(last, to);
  }
  const Place first = adder.place(), inner = adder.place(), outer = adder.place(), last = adder.place();
  builder.epsilon(from, first.states[Place::kBegun]);
  if (!begin) adder.anchored(any, first, first);
  adder.join(first, inner);
  adder.anchored(r, inner, outer);
  adder.join(outer, last);
  if (!end) adder.anchored(any, last, last);
  for (const int32_t s : last.states) builder.epsilon(s, to);
}

}  // namespace invar::grammar
