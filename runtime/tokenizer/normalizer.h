// The "normalizer" of tokenizer.json: text to text, before splitting.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/tokenizer/fields.h"
#include "runtime/tokenizer/pattern.h"

namespace invar::tokenizer {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // Supported types: NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip, Sequence.
  static absl::StatusOr<Normalizer> read(const Fields& field);

  // `text` is valid UTF-8, and so is the result. Errors: ResourceExhausted when a pattern costs too much or the text grows
  // beyond all measure (replacements may double it many times over).
  absl::StatusOr<std::string> apply(std::string text, const MatchBudget& budget) const;
  bool empty() const { return steps_.empty(); }

 private:
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kPrepend, kReplace, kStrip };
  struct Step {
    Kind kind;
    std::string content;                     // kPrepend, kReplace
    std::shared_ptr<const Pattern> pattern;  // kReplace
    bool left = false, right = false;        // kStrip
  };
  void read_step(const Fields& field);

  std::vector<Step> steps_;
};

}  // namespace invar::tokenizer
