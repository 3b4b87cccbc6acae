// The "pre_tokenizer" of tokenizer.json: cuts normalized text into the words that the model sees one by one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/tokenizer/fields.h"
#include "runtime/tokenizer/pattern.h"

namespace invar::tokenizer {

// Words as ranges of one text. Most steps only cut, so they leave the text alone.
struct Words {
  struct Range {
    uint32_t begin, end;
    bool first;  // begins where the whole text given to encode() begins
  };
  std::string text;
  std::vector<Range> ranges;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;  // cuts nothing
  // Supported types: Split, ByteLevel, Digits, Metaspace, Sequence.
  static absl::StatusOr<PreTokenizer> read(const Fields& field);

  // Errors: ResourceExhausted as Pattern::find_all.
  absl::Status apply(Words& words, const MatchBudget& budget) const;

  // The words are bytes, for the model to spell in the byte alphabet. True when the last step is ByteLevel: leaving that
  // spelling to the model spares it for every word that the model remembers.
  bool ends_in_bytes() const { return !steps_.empty() && steps_.back().kind == Kind::kByteLevel; }

 private:
  enum class Kind { kSplit, kByteLevel, kDigits, kMetaspace };
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Prefix { kNever, kFirst, kAlways };
  struct Step {
    Kind kind;
    std::shared_ptr<const Pattern> pattern;  // null: nothing is cut
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::string prefix_text;  // put before a word that does not begin with it
    Prefix prefix = Prefix::kNever;
  };
  void read_step(const Fields& field);
  static absl::Status cut(const Step& step, Words& words, const MatchBudget& budget);
  static void add_prefix(const Step& step, Words& words);
  static void spell_bytes(Words& words);

  std::vector<Step> steps_;
};

}  // namespace invar::tokenizer
