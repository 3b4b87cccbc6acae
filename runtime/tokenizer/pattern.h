// What the splitting and replacing steps of tokenizer.json search for: a string or a regular expression.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/fields.h"

namespace invar::tokenizer {

// A range of bytes of a text, and whether it is a match or what lies between matches.
struct Span {
  uint32_t begin, end;
  bool match;
};

// The processor time that one encode() may spend in patterns: they are untrusted and may take exponential time. Time on the
// wall would refuse honest texts on a busy host. For use on the thread that made it.
class MatchBudget {
 public:
  explicit MatchBudget(size_t text_bytes);
  bool spent() const;

 private:
  int64_t end_;  // nanoseconds of this thread's processor time
};

class Pattern {
 public:
  // `holder` has the field "pattern": {"String": ..} or {"Regex": ..}. Errors as Fields says; an empty pattern is one.
  static std::shared_ptr<const Pattern> read(const Fields& holder);
  static absl::StatusOr<std::shared_ptr<const Pattern>> regex(std::string_view oniguruma);
  static std::shared_ptr<const Pattern> string(std::string text);

  ~Pattern();
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  // Appends spans that cover `text` (valid UTF-8) without gaps, left to right; matches may be empty. Errors:
  // ResourceExhausted when the pattern takes too many steps or the budget is spent.
  absl::Status find_all(std::string_view text, const MatchBudget& budget, std::vector<Span>& out) const;

  bool is_string() const { return code_ == nullptr; }
  const std::string& text() const { return text_; }

 private:
  Pattern() = default;
  struct Found {
    size_t begin, end;
    bool any;
  };
  absl::StatusOr<Found> find(std::string_view text, size_t from, const MatchBudget& budget) const;

  std::string text_;      // as in the file
  void* code_ = nullptr;  // pcre2_code; the header of PCRE2 stays out of here
};

}  // namespace invar::tokenizer
