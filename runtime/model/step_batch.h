// Sequences of equal lengths, each with pages of its own, one after the other: steps for benches.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/model/step_rows.h"

namespace invar {

class StepBatch {
 public:
  StepBatch(int64_t vocab_size, int64_t page_size, int64_t sequences, int64_t tokens);
  // Tokens at positions [first, first + count) of each sequence; the logits of the last one are wanted. The batch owns the page
  // tables.
  StepRows rows(int64_t first, int64_t count) const;

 private:
  int64_t vocab_size_, page_size_, pages_;
  std::vector<std::vector<int32_t>> tables_;
};

}  // namespace invar
