#pragma once

#include "kernels/lanes/cuda/pieces.cuh"

namespace invar::cuda {

// RN(RN(g * sigmoid(g)) * up). RN(1 / x) is what the device's reciprocal gives; a NaN gate stays NaN whatever E(NaN) is, because
// g itself is a factor.
__device__ inline float silu_mul_value(float g, float up) {
  const float e = exp2_selected(numerics::mul(g, -numerics::kLog2e));
  return numerics::mul(numerics::mul(g, __frcp_rn(numerics::add(1.0f, e))), up);
}

// The same for several values without a branch each. From 1 to 2^126 these are the very instructions of __frcp_rn (one step of
// Newton's from the approximation); beyond it, rarely, __frcp_rn itself.
__device__ inline float reciprocal_from_one(float x) {
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return numerics::fma(r, numerics::fma(-x, r, 1.0f), r);
}
template <int kCount>
__device__ inline void silu_mul_values(const float (&g)[kCount], const float (&up)[kCount], float* y) {
  float x[kCount], r[kCount];
  bool far = false;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    x[i] = numerics::add(1.0f, exp2_selected(numerics::mul(g[i], -numerics::kLog2e)));
    r[i] = reciprocal_from_one(x[i]);
    far |= !(x[i] < 0x1p126f);
  }
  if (far) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) r[i] = __frcp_rn(x[i]);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) y[i] = numerics::mul(numerics::mul(g[i], r[i]), up[i]);
}

}  // namespace invar::cuda
