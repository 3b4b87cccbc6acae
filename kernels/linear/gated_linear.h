// The first half of a gated MLP: y[m][j] = silu_mul(bf(gate_j), bf(up_j)), gate and up being column-parallel linears of the same
// x (clauses L1, L2; silu_mul of numerics.h). How the two matrices lie together is the backend's own: where a schedule can
// multiply the pairs as they leave the tensor cores, pairs lie close.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/device/device_array.h"
#include "kernels/linear/linear.h"

namespace invar {

class GatedWeights {
 public:
  GatedWeights() = default;
  // Two matrices [width][inputs].
  GatedWeights(const Device& device, int64_t width, int64_t inputs);
  int64_t width() const { return width_; }
  int64_t inputs() const { return matrix_.inputs(); }
  size_t bytes() const { return matrix_.bytes() + static_cast<size_t>(bias_.size()) * sizeof(Bf16); }
  // As PackedWeights::pack_rows, rows [first, first + count) of one of the two; `first` is a multiple of kGatedRun.
  void pack_gate(int64_t first, const Bf16* rows, int64_t count, int64_t row_stride);
  void pack_up(int64_t first, const Bf16* rows, int64_t count, int64_t row_stride);
  // Both [width], or both empty.
  void set_bias(const Device& device, const std::vector<Bf16>& gate, const std::vector<Bf16>& up);

  // Both as one matrix. Where outputs alternate: kGatedRun of gate, kGatedRun of up, and so on, the last runs filled up with
  // zeros; else all of gate, then all of up.
  const PackedWeights& matrix() const { return matrix_; }
  bool alternate() const { return alternate_; }
  const Bf16* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // of the outputs of matrix(), or null

 private:
  int64_t place_of(int64_t first, bool up) const;
  PackedWeights matrix_;
  DeviceArray<Bf16> bias_;
  int64_t width_ = 0;
  bool alternate_ = false;
};
inline constexpr int64_t kGatedRun = 8;

struct GatedLinear {
  int64_t rows = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  const GatedWeights* weights = nullptr;
  Bf16* both = nullptr;  // room for [rows][weights->matrix().outputs()], 16-byte aligned; contents mean nothing
  Bf16* y = nullptr;     // [rows][width]
  int64_t y_stride = 0;
};
void linear_gated(const Device& device, const GatedLinear& problem);

}  // namespace invar
