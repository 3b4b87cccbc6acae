// The two roundings of a rotated pair (clause 6).
#pragma once

#include "kernels/numerics.h"

namespace invar::cuda {

__device__ inline float first_rotated(float x1, float x2, float c, float s) {
  return numerics::fma(x1, c, -numerics::mul(x2, s));
}
__device__ inline float second_rotated(float x1, float x2, float c, float s) {
  return numerics::fma(x2, c, numerics::mul(x1, s));
}

}  // namespace invar::cuda
