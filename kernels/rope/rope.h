// Rotary position embedding, rotate-half form. Tables come from one fixed double-precision routine, so they are data (clause 6).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device/device.h"

namespace invar {

// How a model turns positions into angles, with the names and the formulas of Hugging Face's rope_scaling / rope_parameters.
// `type`: "default", "linear", "llama3" or "yarn"; anything else is refused ("dynamic" depends on the length of the request's
// own past, so it would break decode = prefill).
struct RopeScaling {
  std::string type = "default";
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  double original_max_position = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 0;
  double mscale_all_dim = 0;
  double attention_factor = 0;  // 0 = derived
  bool truncate = true;         // yarn: the corner dimensions are rounded outward to integers
};

// 1 / wavelength of each pair of dimensions, rounded to fp32 once, and the factor on cos and sin (1 except for yarn).
struct RopeFrequencies {
  std::vector<float> inverse;  // [rotary_dim / 2]
  double attention_factor = 1;
};
// InvalidArgument names the field and its value.
absl::StatusOr<RopeFrequencies> rope_frequencies(const RopeScaling& scaling, double theta, int64_t rotary_dim);

// cos and sin for positions [0, positions): [position][rotary_dim / 2] fp32 each. The same bits on every machine.
class RopeTable {
 public:
  static constexpr int64_t kMaxPositions = int64_t{1} << 24;  // beyond it a position is no longer exact in fp32

  RopeTable() = default;
  // InvalidArgument names the field and its value. Takes rotary_dim * positions * 4 bytes.
  static absl::StatusOr<RopeTable> make(const RopeScaling& scaling, double theta, int64_t rotary_dim, int64_t positions);
  int64_t half() const { return half_; }
  int64_t positions() const { return positions_; }
  const float* cosine(int64_t position) const { return table_.data() + position * 2 * half_; }
  const float* sine(int64_t position) const { return cosine(position) + half_; }

  // Copies the table to a GPU; rope() on that device needs it there. Nothing with Backend::kCpu.
  void to_device(const Device& device);
  const float* on_device() const { return device_table_.as<float>(); }  // [position][2][half]; null before to_device()

 private:
  int64_t half_ = 0;
  int64_t positions_ = 0;
  std::vector<float> table_;
  Buffer device_table_;
};

// In place: y1 = bf(fma(x1, c, -RN(x2 * s))), y2 = bf(fma(x2, c, RN(x1 * s))) for each of `heads` vectors of head_dim of each
// row, where x1 is the first and x2 the second half of the vector's first 2 * table->half() elements; the rest passes through.
// Positions lie in [0, table->positions()). The table is constant data: it was on the device before the kernels now queued.
struct Rope {
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  Bf16* x = nullptr;
  int64_t x_stride = 0;
  const int32_t* positions = nullptr;  // [rows]
  const RopeTable* table = nullptr;
};
void rope(const Device& device, const Rope& problem);
void rope_reference(const Rope& problem);

}  // namespace invar
