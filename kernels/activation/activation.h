// Element-wise steps between the linears: silu(gate) * up and the residual add. Single roundings, no order to keep.
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

// y[r][i] = silu_mul(gate, up): the two side by side, x[r][i] and x[r][width + i], as one linear writes them. With a run they
// alternate: `run` of gate, `run` of up; Backend::kCuda takes 8 only.
struct SiluMul {
  int64_t rows = 0;
  int64_t width = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  int64_t run = 0;
  Bf16* y = nullptr;
  int64_t y_stride = 0;
};
void silu_mul(const Device& device, const SiluMul& problem);
void silu_mul_reference(const SiluMul& problem);

// x[i] = bf(RN(x[i] + y[i])).
void residual_add(const Device& device, Bf16* x, const Bf16* y, int64_t count);
void residual_add_reference(Bf16* x, const Bf16* y, int64_t count);

}  // namespace invar
