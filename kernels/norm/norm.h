// RMSNorm: r = rsqrt(RN(RN(sum x^2 / n) + eps)), y = bf(RN(w * bf(RN(x * r)))). The sum runs over 1024 virtual lanes (clause 2).
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

// rows x groups vectors of `width`; vector (r, g) starts at x + r * x_stride + g * width. y may alias x. weight: [width],
// constant data: on a GPU it is read while earlier kernels still run, so none of them may write it.
// With groups = heads and width = head_dim this is the q/k norm.
struct RmsNorm {
  int64_t rows = 0;
  int64_t groups = 1;
  int64_t width = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  const Bf16* weight = nullptr;
  float epsilon = 0;
  Bf16* y = nullptr;
  int64_t y_stride = 0;
};
void rms_norm(const Device& device, const RmsNorm& problem);
void rms_norm_reference(const RmsNorm& problem);

// The row sum of clause 2 for non-negative or arbitrary values: lane(k) = k mod 1024, then halving strides 512 .. 1.
float sum_of_squares_reference(const Bf16* x, int64_t count);
float row_sum_reference(const float* x, int64_t count);

}  // namespace invar
