// The vector schedules of the element-wise steps, one an instruction set. Equal bits; activation.cc chooses.
#pragma once

#include "kernels/activation/activation.h"

namespace invar::activation_schedule {

// Rows [begin, end) of the problem.
void silu_mul_avx2(const SiluMul& problem, int64_t begin, int64_t end);
void silu_mul_avx512(const SiluMul& problem, int64_t begin, int64_t end);
// Elements [begin, end).
void residual_avx2(Bf16* x, const Bf16* y, int64_t begin, int64_t end);
void residual_avx512(Bf16* x, const Bf16* y, int64_t begin, int64_t end);

}  // namespace invar::activation_schedule
