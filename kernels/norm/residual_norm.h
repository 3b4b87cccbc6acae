// x = x + y and the norm of it: what lies between two blocks of a decoder, in one launch, because a decode step is bound by
// launches and by passes over the rows.
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

// x[r][i] = residual(x[r][i], y[r][i]) for rows of `width`, then normed[r] = rms_norm(x[r]). All three [rows][width] without
// gaps; normed may be y, but does not overlap x. weight [width] is constant data: no queued kernel writes it.
struct ResidualRmsNorm {
  int64_t rows = 0;
  int64_t width = 0;
  Bf16* x = nullptr;
  const Bf16* y = nullptr;
  const Bf16* weight = nullptr;
  float epsilon = 0;
  Bf16* normed = nullptr;
};
// The bits of residual_add() followed by rms_norm().
void residual_rms_norm(const Device& device, const ResidualRmsNorm& problem);

}  // namespace invar
