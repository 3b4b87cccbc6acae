// Where a rank's weights come from: safetensors files, or seeded random numbers made from the config alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/numerics.h"
#include "runtime/model_config/model_config.h"

namespace invar {

using numerics::Bf16;

struct LoadProgress {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  std::string_view tensor;  // last one touched; valid during the call only
};
// Called from one thread at a time, with bytes_done ascending.
using LoadProgressFn = std::function<void(const LoadProgress&)>;

// Reading is const and may be done from several threads at once.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Dimensions of a tensor (one or two); empty when there is no such tensor.
  virtual std::vector<int64_t> shape(std::string_view tensor) const = 0;

  // out[r * out_stride + c] = bf(element [row0 + r][col0 + c]) for r in [0, rows), c in [0, cols).
  // A tensor of one dimension has as many rows as elements and one column: col0 = 0, cols = 1, out_stride usually 1.
  // Only the pages that hold the slice are touched. InvalidArgument, naming tensor, element and value: no such tensor, a slice
  // outside of it, or an element that is not finite as bf16 (NaN, infinity, or an fp32 too large); `out` is then unspecified.
  virtual absl::Status read_rows(std::string_view tensor, int64_t row0, int64_t rows, int64_t col0, int64_t cols, Bf16* out,
                                 int64_t out_stride) const = 0;

  // Bytes of all tensors as stored: what a progress bar counts to.
  virtual int64_t total_bytes() const = 0;

  // SHA-256 (32 bytes) of what the tensors hold, independent of how they are spread over files. `threads` >= 1 hash in parallel.
  virtual absl::StatusOr<std::string> content_digest(int threads, const LoadProgressFn& progress) const = 0;
};

// Opens model.safetensors, or the files named by model.safetensors.index.json, of a model folder and checks every header and
// that the files hold exactly expected_tensors(config) in bf16, fp16 or fp32. Extra are allowed only rotary inv_freq buffers
// and the head of a model with tied embeddings; neither is read.
absl::StatusOr<std::unique_ptr<WeightSource>> open_file_weights(const std::filesystem::path& folder, const ModelConfig& config);

// `--load-format dummy`: an element depends on (seed, tensor name, its index in the whole tensor) alone, so every layout has
// the same model. Matrices: zero mean, deviation 1 / sqrt(inputs). Norms: around 1. Biases: deviation 0.02.
std::unique_ptr<WeightSource> make_dummy_weights(const ModelConfig& config, uint64_t seed);

}  // namespace invar
