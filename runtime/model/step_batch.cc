#include "runtime/model/step_batch.h"

#include "kernels/numerics.h"

namespace invar {

StepBatch::StepBatch(int64_t vocab_size, int64_t page_size, int64_t sequences, int64_t tokens)
    : vocab_size_(vocab_size), page_size_(page_size), pages_((tokens + page_size - 1) / page_size) {
  for (int64_t s = 0; s < sequences; ++s) {
    std::vector<int32_t>& table = tables_.emplace_back();
    for (int64_t p = 0; p < pages_; ++p) table.push_back(static_cast<int32_t>(s * pages_ + p));
  }
}

StepRows StepBatch::rows(int64_t first, int64_t count) const {
  StepRows r;
  for (size_t s = 0; s < tables_.size(); ++s) {
    r.page_tables.push_back(tables_[s]);
    for (int64_t p = first; p < first + count; ++p) {
      r.tokens.push_back(
          static_cast<int32_t>(numerics::mix64(static_cast<uint64_t>(p) * 977 + s) % static_cast<uint64_t>(vocab_size_)));
      r.positions.push_back(static_cast<int32_t>(p));
      r.sequences.push_back(static_cast<int32_t>(s));
      r.slots.push_back(static_cast<int64_t>(s) * pages_ * page_size_ + p);
    }
    r.logits.push_back(r.size() - 1);
  }
  return r;
}

}  // namespace invar
