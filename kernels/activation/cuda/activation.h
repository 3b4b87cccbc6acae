// The element-wise steps on a GPU.
#pragma once

#include "kernels/activation/activation.h"

namespace invar::cuda {

// Elements of a thread: 2, 4 or 8 where 16-byte pieces are aligned, otherwise 1. Equal bits.
int silu_mul_piece(int multiprocessors, const SiluMul& problem);
void silu_mul(const Device& device, const SiluMul& problem);
void silu_mul(const Device& device, const SiluMul& problem, int piece);
void residual_add(const Device& device, Bf16* x, const Bf16* y, int64_t count);

}  // namespace invar::cuda
