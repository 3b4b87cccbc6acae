// Seeded random weights made from the config alone.
#pragma once

#include <map>
#include <string>

#include "runtime/model_config/weight_names.h"
#include "runtime/weights/weight_source.h"

namespace invar {

class DummyWeights : public WeightSource {
 public:
  DummyWeights(const ModelConfig& config, uint64_t seed);

  std::vector<int64_t> shape(std::string_view tensor) const override;
  absl::Status read_rows(std::string_view tensor, int64_t row0, int64_t rows, int64_t col0, int64_t cols, Bf16* out,
                         int64_t out_stride) const override;
  int64_t total_bytes() const override { return total_bytes_; }
  // Of the rule and the seed; the config is the model digest's other half. Nothing is generated.
  absl::StatusOr<std::string> content_digest(int threads, const LoadProgressFn& progress) const override;

 private:
  uint64_t seed_;
  std::map<std::string, ExpectedTensor, std::less<>> tensors_;
  int64_t total_bytes_ = 0;
};

}  // namespace invar
