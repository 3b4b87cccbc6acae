#pragma once

#include "kernels/lanes/cuda/pieces.cuh"

namespace invar::cuda {

// RN(1 + E(x)) for every x but NaN. What E decides lies in the bounds: 2^128 is infinite by its bits, and below -126, where E is
// 0, what stands here is 2^-125 at most and lost in the sum. Decided at the end it would be a branch for each value, which
// compilers make of a selection whose one side is long, and then values wait for each other.
__device__ inline float one_plus_exp2(float x) {
  const float bounded = fminf(fmaxf(x, -127.0f), 128.0f);
  const float t = numerics::add(bounded, numerics::kRoundMagic);
  const float f = numerics::sub(bounded, numerics::sub(t, numerics::kRoundMagic));
  constexpr float highest = numerics::kExp2[numerics::kExp2Degree - 1];
  const float p = numerics::fma(numerics::horner<numerics::kExp2, numerics::kExp2Degree - 2>(highest, f), f, 1.0f);
  return numerics::add(1.0f, numerics::bits_float(numerics::float_bits(p) + (numerics::float_bits(t) << 23)));
}

// RN(RN(g * sigmoid(g)) * up). RN(1 / x) is what the device's reciprocal gives; a NaN gate stays NaN whatever E(NaN) is, because
// g itself is a factor.
__device__ inline float silu_mul_value(float g, float up) {
  return numerics::mul(numerics::mul(g, __frcp_rn(one_plus_exp2(numerics::mul(g, -numerics::kLog2e)))), up);
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
    x[i] = one_plus_exp2(numerics::mul(g[i], -numerics::kLog2e));
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
