#include "runtime/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <optional>

#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/strings.h"
#include "runtime/tokenizer/utf8.h"

namespace invar::tokenizer {
namespace {

// The pattern of GPT-2, which ByteLevel splits by when use_regex is true. It and \p{N} always compile.
constexpr std::string_view kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr size_t kMaxSteps = 32;

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::read(const Fields& field) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.read_step(field);
  if (pre_tokenizer.steps_.size() > kMaxSteps) field.fail("", concat("more than ", kMaxSteps, " steps"));
  if (!field.ok()) return field.error();
  return pre_tokenizer;
}

void PreTokenizer::read_step(const Fields& field) {
  const std::string type = field.text("type");
  if (!field.ok()) return;
  if (type == "Sequence") {
    field.only({"type", "pretokenizers"});
    for (const Fields& child : field.list("pretokenizers")) read_step(child);
  } else if (type == "Split") {
    field.only({"type", "pattern", "behavior", "invert"});
    Step step{.kind = Kind::kSplit, .pattern = Pattern::read(field), .invert = field.flag("invert", false)};
    const std::string behavior = field.text("behavior");
    if (behavior == "Isolated")
      step.behavior = Behavior::kIsolated;
    else if (behavior == "Removed")
      step.behavior = Behavior::kRemoved;
    else if (behavior == "MergedWithPrevious")
      step.behavior = Behavior::kMergedWithPrevious;
    else if (behavior == "MergedWithNext")
      step.behavior = Behavior::kMergedWithNext;
    else if (behavior == "Contiguous")
      step.behavior = Behavior::kContiguous;
    else
      field.unsupported("behavior");
    steps_.push_back(std::move(step));
  } else if (type == "ByteLevel") {
    field.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});  // trim_offsets: we give no offsets
    Step step{.kind = Kind::kByteLevel, .prefix_text = " "};
    if (field.flag("use_regex", true)) step.pattern = *Pattern::regex(kGpt2);
    if (field.flag("add_prefix_space")) step.prefix = Prefix::kAlways;
    steps_.push_back(std::move(step));
  } else if (type == "Digits") {
    field.only({"type", "individual_digits"});
    const bool each = field.flag("individual_digits");
    steps_.push_back({.kind = Kind::kDigits,
                      .pattern = *Pattern::regex("\\p{N}"),
                      .behavior = each ? Behavior::kIsolated : Behavior::kContiguous});
  } else if (type == "Metaspace") {
    field.only({"type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
    Step step{.kind = Kind::kMetaspace, .behavior = Behavior::kMergedWithNext, .prefix_text = field.text("replacement")};
    // Older files say add_prefix_space (true where absent), newer ones prepend_scheme.
    const bool old_prefix = field.flag("add_prefix_space", true);
    const std::string scheme = field.text("prepend_scheme", old_prefix ? "always" : "never");
    if (scheme == "always")
      step.prefix = Prefix::kAlways;
    else if (scheme == "first")
      step.prefix = Prefix::kFirst;
    else if (scheme == "never")
      step.prefix = Prefix::kNever;
    else
      field.unsupported("prepend_scheme");
    const std::string& mark = step.prefix_text;
    if (mark.empty() || utf8_length(static_cast<unsigned char>(mark[0])) != static_cast<int>(mark.size()))
      field.fail("replacement", "is not one character");
    if (field.flag("split", true) && field.ok()) step.pattern = Pattern::string(mark);
    steps_.push_back(std::move(step));
  } else {
    field.unsupported("type");
  }
}

absl::Status PreTokenizer::apply(Words& words, const MatchBudget& budget) const {
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    if (step.kind == Kind::kMetaspace) {
      // One range at a time: the replacement is longer than a space.
      Words marked;
      for (const auto& range : words.ranges) {
        const auto begin = static_cast<uint32_t>(marked.text.size());
        marked.text +=
            replace_all(std::string_view(words.text).substr(range.begin, range.end - range.begin), " ", step.prefix_text);
        marked.ranges.push_back({begin, static_cast<uint32_t>(marked.text.size()), range.first});
      }
      words = std::move(marked);
    }
    if (step.prefix != Prefix::kNever) add_prefix(step, words);
    if (step.pattern) {
      if (auto status = cut(step, words, budget); !status.ok()) return status;
    }
    if (step.kind == Kind::kByteLevel && i + 1 < steps_.size()) spell_bytes(words);
  }
  return absl::OkStatus();
}

void PreTokenizer::add_prefix(const Step& step, Words& words) {
  const auto lacks = [&](const Words::Range& range) {
    return (step.prefix == Prefix::kAlways || range.first) &&
           !std::string_view(words.text).substr(range.begin, range.end - range.begin).starts_with(step.prefix_text);
  };
  if (std::none_of(words.ranges.begin(), words.ranges.end(), lacks)) return;
  Words result;
  result.text.reserve(words.text.size() + words.ranges.size() * step.prefix_text.size());
  for (const auto& range : words.ranges) {
    const auto begin = static_cast<uint32_t>(result.text.size());
    if (lacks(range)) result.text += step.prefix_text;
    result.text.append(words.text, range.begin, range.end - range.begin);
    result.ranges.push_back({begin, static_cast<uint32_t>(result.text.size()), range.first});
  }
  words = std::move(result);
}

void PreTokenizer::spell_bytes(Words& words) {
  Words result;
  for (const auto& range : words.ranges) {
    const auto begin = static_cast<uint32_t>(result.text.size());
    append_byte_characters(std::string_view(words.text).substr(range.begin, range.end - range.begin), result.text);
    result.ranges.push_back({begin, static_cast<uint32_t>(result.text.size()), range.first});
  }
  words = std::move(result);
}

absl::Status PreTokenizer::cut(const Step& step, Words& words, const MatchBudget& budget) {
  std::vector<Words::Range> ranges;
  std::vector<Span> spans;
  struct Piece {
    uint32_t begin, end;
    bool removed;
  };
  std::vector<Piece> pieces;
  for (const auto& range : words.ranges) {
    const auto word = std::string_view(words.text).substr(range.begin, range.end - range.begin);
    spans.clear();
    pieces.clear();
    if (auto status = step.pattern->find_all(word, budget, spans); !status.ok()) return status;
    if (step.behavior == Behavior::kMergedWithNext) std::reverse(spans.begin(), spans.end());
    bool previous_match = false;
    for (const Span& span : spans) {
      const bool match = span.match != step.invert;
      bool join = false;
      if (step.behavior == Behavior::kContiguous) join = match == previous_match;
      if (step.behavior == Behavior::kMergedWithPrevious || step.behavior == Behavior::kMergedWithNext)
        join = match && !previous_match;
      previous_match = match;
      if (join && !pieces.empty()) {
        if (step.behavior == Behavior::kMergedWithNext) {
          pieces.back().begin = span.begin;
        } else {
          pieces.back().end = span.end;
        }
      } else {
        pieces.push_back({span.begin, span.end, step.behavior == Behavior::kRemoved && match});
      }
    }
    if (step.behavior == Behavior::kMergedWithNext) std::reverse(pieces.begin(), pieces.end());
    for (const Piece& piece : pieces) {
      if (piece.removed || piece.begin == piece.end) continue;
      ranges.push_back({range.begin + piece.begin, range.begin + piece.end, range.first && piece.begin == 0});
    }
  }
  words.ranges = std::move(ranges);
  return absl::OkStatus();
}

}  // namespace invar::tokenizer
