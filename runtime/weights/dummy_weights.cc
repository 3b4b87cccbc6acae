#include "runtime/weights/dummy_weights.h"

#include <cstring>

#include "runtime/weights/slice.h"
#include "runtime/weights/tree_hash.h"

namespace invar {
namespace {

// Sum of four 16-bit uniform numbers about 0: close to normal, never beyond 3.5 deviations, and an exact integer until the one
// multiplication by the scale.
constexpr float kSumDeviation = 37837.2f;
int32_t bell(uint64_t bits) {
  const uint64_t sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
  return static_cast<int32_t>(sum) - 2 * 0xffff;
}

struct Scale {
  float centre;
  float deviation;
};
Scale scale_of(const ExpectedTensor& tensor) {
  switch (tensor.role) {
    case TensorRole::kNorm:
      return {1.0f, 0.05f};
    case TensorRole::kBias:
      return {0.0f, 0.02f};
    default:
      return {0.0f, numerics::rsqrt(static_cast<float>(tensor.shape[1]))};  // keeps activations near 1 through the layers
  }
}

}  // namespace

DummyWeights::DummyWeights(const ModelConfig& config, uint64_t seed) : seed_(seed) {
  for (ExpectedTensor& tensor : expected_tensors(config)) {
    int64_t bytes = sizeof(Bf16);
    for (const int64_t dim : tensor.shape) bytes *= dim;
    total_bytes_ += bytes;
    std::string name = tensor.name;
    tensors_.emplace(std::move(name), std::move(tensor));
  }
}

std::vector<int64_t> DummyWeights::shape(std::string_view tensor) const {
  const auto at = tensors_.find(tensor);
  return at == tensors_.end() ? std::vector<int64_t>{} : at->second.shape;
}

absl::Status DummyWeights::read_rows(std::string_view tensor, int64_t row0, int64_t rows, int64_t col0, int64_t cols, Bf16* out,
                                     int64_t out_stride) const {
  const auto at = tensors_.find(tensor);
  const std::vector<int64_t> shape = at == tensors_.end() ? std::vector<int64_t>{} : at->second.shape;
  if (absl::Status status = check_slice(tensor, shape, {row0, rows, col0, cols}, out_stride); !status.ok()) return status;
  // A stream a tensor: the key of one lies far from another's, so that streams do not overlap.
  const std::string digest = Sha256().part("dummy weights").number(seed_).part(tensor).finish();
  uint64_t key;
  std::memcpy(&key, digest.data(), sizeof(key));
  const Scale scale = scale_of(at->second);
  const float step = numerics::div(scale.deviation, kSumDeviation);
  const int64_t width = columns_of(shape);
  for (int64_t r = 0; r < rows; ++r) {
    const uint64_t first = key + static_cast<uint64_t>((row0 + r) * width + col0);
    Bf16* line = out + r * out_stride;
    for (int64_t c = 0; c < cols; ++c) {
      const float x = static_cast<float>(bell(numerics::mix64(first + static_cast<uint64_t>(c))));
      line[c] = numerics::bf(numerics::fma(x, step, scale.centre));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> DummyWeights::content_digest(int, const LoadProgressFn& progress) const {
  if (progress) progress({total_bytes_, total_bytes_, "dummy"});
  return Sha256().part("dummy").number(seed_).finish();
}

std::unique_ptr<WeightSource> make_dummy_weights(const ModelConfig& config, uint64_t seed) {
  return std::make_unique<DummyWeights>(config, seed);
}

}  // namespace invar
