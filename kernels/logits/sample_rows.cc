#include "kernels/logits/sample_rows.h"

#include "kernels/logits/cuda/sample_rows.h"

namespace invar {

RowSampler::RowSampler(const Device& device) : device_(&device) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) on_device_ = std::make_shared<cuda::RowSampler>(device);
}

RowSampler::~RowSampler() = default;

std::vector<SampledRow> RowSampler::run(const float* logits, int64_t vocabulary, std::span<const SampleProblem> problems) {
  if constexpr (kCudaBuilt)
    if (on_device_) return on_device_->run(logits, vocabulary, problems);
  std::vector<SampledRow> rows(problems.size());
  device_->pool().run(static_cast<int64_t>(problems.size()), [&](int64_t r) {
    SampleProblem problem = problems[r];
    problem.logits = {logits + r * vocabulary, static_cast<size_t>(vocabulary)};
    rows[r] = {sample(*device_, problem), hash_logits(*device_, problem.logits.data(), vocabulary, 0)};
  });
  return rows;
}

void hash_rows(const Device& device, const float* logits, int64_t rows, int64_t count, int64_t first, uint64_t* hashes) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::hash_rows(device, logits, rows, count, first, hashes);
  device.pool().run(rows, [&](int64_t r) { hashes[r] = hash_logits(device, logits + r * count, count, first); });
}

}  // namespace invar
