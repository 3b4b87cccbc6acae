// Weights of a Hugging Face folder: one or many safetensors files that hold exactly the model's tensors.
#pragma once

#include <map>
#include <set>
#include <string>

#include "runtime/model_config/weight_names.h"
#include "runtime/weights/safetensors_file.h"
#include "runtime/weights/weight_source.h"

namespace invar {

class FileWeights : public WeightSource {
 public:
  static absl::StatusOr<std::unique_ptr<FileWeights>> open(const std::filesystem::path& folder, const ModelConfig& config);

  std::vector<int64_t> shape(std::string_view tensor) const override;
  absl::Status read_rows(std::string_view tensor, int64_t row0, int64_t rows, int64_t col0, int64_t cols, Bf16* out,
                         int64_t out_stride) const override;
  int64_t total_bytes() const override { return total_bytes_; }
  absl::StatusOr<std::string> content_digest(int threads, const LoadProgressFn& progress) const override;

 private:
  struct Entry {
    const SafetensorsFile* file;
    const TensorRecord* record;
  };
  FileWeights() = default;
  absl::Status open_file(const std::filesystem::path& path);
  absl::Status open_indexed(const std::filesystem::path& folder, const std::filesystem::path& index);
  absl::Status check_against(const ModelConfig& config);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Entry, std::less<>> tensors_;  // by name
  int64_t total_bytes_ = 0;
};

}  // namespace invar
