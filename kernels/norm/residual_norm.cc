#include "kernels/norm/residual_norm.h"

#include "kernels/activation/activation.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/norm/norm.h"

namespace invar {

void residual_rms_norm(const Device& device, const ResidualRmsNorm& p) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::residual_rms_norm(device, p);
  residual_add(device, p.x, p.y, p.rows * p.width);
  rms_norm(device, {.rows = p.rows,
                    .width = p.width,
                    .x = p.x,
                    .x_stride = p.width,
                    .weight = p.weight,
                    .epsilon = p.epsilon,
                    .y = p.normed,
                    .y_stride = p.width});
}

}  // namespace invar
