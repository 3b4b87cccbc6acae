#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar::cuda {

// y = bf(RN(root + bias)), or bf(root) where bias is null; rows contiguous. Both profiles.
void finish_row_linear(const Device& device, const float* root, const Bf16* bias, int64_t rows, int64_t outputs, Bf16* y);

}  // namespace invar::cuda
