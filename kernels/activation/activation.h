// Element-wise steps between the linears: silu(gate) * up and the residual add. Single roundings, no order to keep.
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

// y[r][i] = silu_mul(x[r][i], x[r][width + i]): gate and up side by side, as one fused linear writes them.
struct SiluMul {
  int64_t rows = 0;
  int64_t width = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  Bf16* y = nullptr;
  int64_t y_stride = 0;
};
void silu_mul(const Device& device, const SiluMul& problem);
void silu_mul_reference(const SiluMul& problem);

// x[i] = bf(RN(x[i] + y[i])).
void residual_add(const Device& device, Bf16* x, const Bf16* y, int64_t count);
void residual_add_reference(Bf16* x, const Bf16* y, int64_t count);

}  // namespace invar
