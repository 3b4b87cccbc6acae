// One choice's structured output: which tokens its next draw may choose, from the answer so far.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "runtime/grammar/grammar.h"

namespace invar::engine {

// Used by the engine's thread.
class Constraint {
 public:
  // `may_use_end_tokens`: the model has eos ids and the request does not ignore them. They are not allowed before `min_tokens`,
  // unless nothing else is.
  Constraint(std::shared_ptr<grammar::Grammar> grammar, bool may_use_end_tokens, int64_t min_tokens);

  // The mask of the draw that follows `answer`; null after a (forced) token that the grammar forbids. Errors: ResourceExhausted
  // (the constraint is too complex), FailedPrecondition (the vocabulary has no token for what must follow).
  absl::StatusOr<grammar::TokenMask> mask_after(std::span<const int32_t> answer);
  // `answer` is complete: nothing may follow, and no eos is to come.
  bool complete(std::span<const int32_t> answer);
  // The first token of `answer` that the grammar forbids.
  std::optional<int64_t> violation(std::span<const int32_t> answer);

 private:
  void read(std::span<const int32_t> answer);

  const std::shared_ptr<grammar::Grammar> grammar_;
  const bool end_tokens_;
  const int64_t min_tokens_;
  grammar::Matcher matcher_;
  int64_t read_ = 0;  // tokens that the matcher has seen; the one that was forbidden among them
  std::optional<int64_t> violation_;
};

}  // namespace invar::engine
