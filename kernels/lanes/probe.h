// Single operations of the lanes behind plain functions, so that a test can call both widths. Test code only.
#pragma once

#include "kernels/numerics.h"

namespace invar::lanes_probe {

// y[i] = operation(x[i]) for `count` elements, through whole and partial loads and stores alike.
void exp2_avx2(const float* x, int64_t count, float* y);
void exp2_avx512(const float* x, int64_t count, float* y);
void bf_avx2(const float* x, int64_t count, numerics::Bf16* y, float* widened);
void bf_avx512(const float* x, int64_t count, numerics::Bf16* y, float* widened);
// x: one vector (8 or 16 floats).
float halve_avx2(const float* x);
float halve_avx512(const float* x);

}  // namespace invar::lanes_probe
