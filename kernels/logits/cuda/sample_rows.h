// Sampling many rows on a GPU (kernels/logits/README.md, "GPU schedule").
#pragma once

#include <memory>
#include <vector>

#include "kernels/logits/sample_rows.h"

namespace invar::cuda {

class RowSampler {
 public:
  explicit RowSampler(const Device& device);
  ~RowSampler();
  std::vector<SampledRow> run(const float* logits, int64_t vocabulary, std::span<const SampleProblem> problems);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

void hash_rows(const Device& device, const float* logits, int64_t rows, int64_t count, int64_t first, uint64_t* hashes);

}  // namespace invar::cuda
