// From the logits of many rows to their tokens: what the sampling rank does once a step.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/logits/logits.h"

namespace invar {

namespace cuda {
class RowSampler;
}

struct SampledRow {
  SampleResult sample;  // of sample(), bit for bit
  uint64_t hash = 0;    // of hash_logits(), from index 0
};

// Owns scratch that grows to the largest batch seen.
class RowSampler {
 public:
  explicit RowSampler(const Device& device);
  ~RowSampler();
  // Row r is logits + r * vocabulary, device memory with Backend::kCuda; problems[r] says what to do with it, its own `logits`
  // are not looked at. Waits for the device: results are on the host when it returns, so it is no part of a captured graph.
  std::vector<SampledRow> run(const float* logits, int64_t vocabulary, std::span<const SampleProblem> problems);

 private:
  const Device* device_;
  std::shared_ptr<cuda::RowSampler> on_device_;  // shared: its deleter needs no complete type
};

// hashes[r] = hash_logits() of row r ([rows][count]) from index `first`; device memory with Backend::kCuda.
void hash_rows(const Device& device, const float* logits, int64_t rows, int64_t count, int64_t first, uint64_t* hashes);

}  // namespace invar
