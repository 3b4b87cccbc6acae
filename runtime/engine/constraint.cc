#include "runtime/engine/constraint.h"

#include <algorithm>

namespace invar::engine {

Constraint::Constraint(std::shared_ptr<grammar::Grammar> grammar, bool may_use_end_tokens, int64_t min_tokens)
    : grammar_(std::move(grammar)), end_tokens_(may_use_end_tokens), min_tokens_(min_tokens), matcher_(grammar_) {}

// Answers grow; only a replica that was lost with draws of forced tokens in flight asks for earlier ones again.
void Constraint::read(std::span<const int32_t> answer) {
  if (static_cast<int64_t>(answer.size()) < read_) {
    matcher_ = grammar::Matcher(grammar_);
    read_ = 0;
    violation_.reset();
  }
  for (; read_ < static_cast<int64_t>(answer.size()); ++read_)
    if (!violation_ && !matcher_.accept(answer[read_])) violation_ = read_;
}

absl::StatusOr<grammar::TokenMask> Constraint::mask_after(std::span<const int32_t> answer) {
  read(answer);
  if (violation_) return grammar::TokenMask();
  const bool may_end = end_tokens_ && (static_cast<int64_t>(answer.size()) >= min_tokens_ || matcher_.must_end());
  absl::StatusOr<grammar::TokenMask> mask = matcher_.mask(may_end);
  if (mask.ok() && std::all_of((*mask)->begin(), (*mask)->end(), [](uint8_t byte) { return byte == 0; }))
    return absl::FailedPreconditionError("the vocabulary has no token for what must follow");
  return mask;
}

bool Constraint::complete(std::span<const int32_t> answer) {
  read(answer);
  return !violation_ && matcher_.must_end() && (!end_tokens_ || matcher_.ended());
}

std::optional<int64_t> Constraint::violation(std::span<const int32_t> answer) {
  read(answer);
  return violation_;
}

}  // namespace invar::engine
