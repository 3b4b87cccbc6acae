#include "runtime/tokenizer/pattern_dialect.h"

#include <cctype>
#include <optional>

#include "runtime/tokenizer/pattern_class.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

constexpr int kMaxGroupDepth = 50;
constexpr size_t kNoAtom = std::string::npos;

class Translator {
 public:
  explicit Translator(std::string_view in) : in_(in) {}

  absl::StatusOr<std::string> run() {
    if (auto status = body(0); !status.ok()) return status;
    if (at_ < in_.size()) return absl::InvalidArgumentError("a ')' too many");
    return std::move(out_);
  }

 private:
  bool more() const { return at_ < in_.size(); }
  bool next_is(std::string_view text) const { return in_.substr(at_, text.size()) == text; }

  // Alternatives up to the ')' that closes the group, or up to the end.
  absl::Status body(int depth) {
    const size_t begin = at_;
    size_t atom = kNoAtom;  // where in out_ the thing begins that a quantifier would repeat
    bool quantified = false;
    while (more() && in_[at_] != ')') {
      const size_t here = out_.size();
      switch (in_[at_]) {
        case '|':
        case '^':
        case '$':
          out_.push_back(in_[at_++]);
          atom = kNoAtom;
          break;
        case '.':
          out_.push_back(in_[at_++]);
          atom = here;
          break;
        case '(': {
          auto repeatable = group(depth, at_ == begin);
          if (!repeatable.ok()) return repeatable.status();
          atom = *repeatable ? here : kNoAtom;
          break;
        }
        case '[': {
          auto text = read_class(in_, at_);
          if (!text.ok()) return text.status();
          out_ += *text;
          atom = here;
          break;
        }
        case '\\': {
          auto repeatable = escape();
          if (!repeatable.ok()) return repeatable.status();
          atom = *repeatable ? here : kNoAtom;
          break;
        }
        case '*':
        case '+':
        case '?': {
          if (atom == kNoAtom) return absl::InvalidArgumentError(concat("nothing to repeat at byte ", at_));
          if (quantified) wrap(atom);
          out_.push_back(in_[at_++]);
          if (more() && (in_[at_] == '?' || in_[at_] == '+')) out_.push_back(in_[at_++]);  // lazy, possessive
          quantified = true;
          continue;
        }
        case '{':
          if (const auto interval = read_interval()) {
            if (atom == kNoAtom) return absl::InvalidArgumentError(concat("nothing to repeat at byte ", at_));
            if (quantified) wrap(atom);
            out_ += concat("{", interval->low, interval->exact ? "" : ",", interval->exact ? "" : interval->high, "}");
            // Here x{1,3}? is lazy, but x{2}? is an optional x{2} and x{1,3}+ is a repeated x{1,3}, which wrap() writes.
            if (!interval->exact && more() && in_[at_] == '?') out_.push_back(in_[at_++]);
            quantified = true;
            continue;
          }
          [[fallthrough]];
        default: {
          const CodePoint c = code_point_at(in_, at_);
          at_ += c.length;
          out_ += PatternItem{.literal = c.value}.outside();
          atom = here;
        }
      }
      quantified = false;
    }
    return absl::OkStatus();
  }

  // PCRE2 takes one quantifier for each atom, Oniguruma any number.
  void wrap(size_t atom) {
    out_.insert(atom, "(?:");
    out_.push_back(')');
  }

  struct Interval {
    std::string low, high;
    bool exact;
  };
  // {n} {n,} {n,m} {,m}; anything else after '{' makes it a plain character.
  std::optional<Interval> read_interval() {
    size_t at = at_ + 1;
    const auto number = [&] {
      std::string digits;
      while (at < in_.size() && std::isdigit(static_cast<unsigned char>(in_[at])) && digits.size() < 6)
        digits.push_back(in_[at++]);
      return digits;
    };
    Interval interval{number(), "", true};
    if (at < in_.size() && in_[at] == ',') {
      ++at;
      interval.exact = false;
      interval.high = number();
    }
    if (at >= in_.size() || in_[at] != '}' || (interval.low.empty() && interval.high.empty())) return std::nullopt;
    if (interval.low.empty()) interval.low = "0";
    at_ = at + 1;
    return interval;
  }

  // Whether what was written can be repeated.
  absl::StatusOr<bool> escape() {
    const size_t size = out_.size();
    if (at_ + 1 < in_.size()) {
      const char letter = in_[at_ + 1];
      const bool is_boundary = letter == 'b' || letter == 'B';
      if (letter == 'A' || letter == 'z' || letter == 'Z') out_ += in_.substr(at_, 2);
      if (is_boundary) {
        const std::string word = concat("[", kWord, "]"), before = concat("(?<=", word, ")"),
                          not_before = concat("(?<!", word, ")");
        const std::string after = concat("(?=", word, ")"), not_after = concat("(?!", word, ")");
        const bool edge = letter == 'b';
        out_ += concat("(?:", before, edge ? not_after : after, "|", not_before, edge ? after : not_after, ")");
      }
      if (out_.size() > size) {
        at_ += 2;
        return false;
      }
    }
    auto item = read_escape(in_, at_, false);
    if (!item.ok()) return item.status();
    out_ += item->outside();
    return true;
  }

  // Whether what was written can be repeated.
  absl::StatusOr<bool> group(int depth, bool at_begin) {
    if (depth >= kMaxGroupDepth) return absl::InvalidArgumentError("groups are nested too deep");
    if (next_is("(*")) return absl::UnimplementedError("'(*' is not supported");
    bool repeatable = true;
    if (!next_is("(?")) {
      ++at_;
      out_ += "(?:";  // nobody reads the groups
    } else {
      std::string_view opening;
      for (const std::string_view known : {"(?:", "(?>", "(?=", "(?!", "(?<=", "(?<!"}) {
        if (next_is(known)) opening = known;
      }
      if (!opening.empty()) {
        at_ += opening.size();
        out_ += opening;
        repeatable = opening == "(?:" || opening == "(?>";
      } else {
        // Options. Oniguruma's m is PCRE2's s; i is the same.
        const size_t end = in_.find_first_not_of("im-", at_ + 2);
        const std::string_view options = end == std::string_view::npos ? "" : in_.substr(at_ + 2, end - at_ - 2);
        if (options.empty() || (in_[end] != ':' && in_[end] != ')')) {
          return absl::UnimplementedError(concat("group '", in_.substr(at_, 4), "' is not supported"));
        }
        out_ += "(?";
        for (const char option : options) out_.push_back(option == 'm' ? 's' : option);
        at_ = end + 1;
        if (in_[end] == ')') {
          // In the middle of alternatives the two disagree on how far an option reaches.
          if (!at_begin) return absl::UnimplementedError("options in the middle of a pattern are not supported");
          out_.push_back(')');
          return false;
        }
        out_.push_back(':');
      }
    }
    if (auto status = body(depth + 1); !status.ok()) return status;
    if (!more()) return absl::InvalidArgumentError("a '(' is not closed");
    ++at_;
    out_.push_back(')');
    return repeatable;
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> translate_pattern(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace invar::tokenizer
