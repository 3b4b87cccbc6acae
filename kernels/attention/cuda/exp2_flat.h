// exp2_fast of numerics.h without its branches.
#pragma once

#include "kernels/numerics.h"

namespace invar::cuda {

// For x up to kFastLimit, NaN excluded, these two give the bits of numerics::exp2_fast. The exponent is kept 64 above its place
// and brought down by a multiplication that flushes: exactly the results below 2^-126, which the contract cuts to +0, are
// subnormal.
inline constexpr float kFastLimit = 32.0f;
inline constexpr float kShiftedMagic = numerics::kRoundMagic + 64.0f;

INVAR_HD float exp2_shifted(float x) {
  using namespace numerics;
  const float t = add(x, kShiftedMagic);  // low bits: RN(x) + 64
  const float f = sub(x, sub(t, kShiftedMagic));
  constexpr float c1 = kExp2Fast[0], c2 = kExp2Fast[1], c3 = kExp2Fast[2];
  float p = fma(c3, f, c2);
  p = fma(p, f, c1);
  p = fma(p, f, 1.0f);
  return bits_float(float_bits(p) + (float_bits(t) << 23));
}
INVAR_HD float exp2_lower(float shifted) {
#ifdef __CUDA_ARCH__
  float y;
  asm("mul.rn.ftz.f32 %0, %1, 0f1F800000;" : "=f"(y) : "f"(shifted));  // 2^-64
  return y;
#else
  const float y = shifted * 0x1p-64f;
  return numerics::float_bits(y) < 0x00800000u ? 0.0f : y;
#endif
}
INVAR_HD float exp2_flat(float x) {
#ifdef __CUDA_ARCH__
  x = fmaxf(x, -127.0f);
#else
  x = x < -127.0f ? -127.0f : x;
#endif
  return exp2_lower(exp2_shifted(x));
}

// Every float, NaN included, at a few instructions more.
INVAR_HD float exp2_any(float x) {
  using namespace numerics;
#ifdef __CUDA_ARCH__
  const float y = fminf(fmaxf(x, -127.0f), 128.0f);
#else
  const float y = x > 128.0f ? 128.0f : x > -127.0f ? x : -127.0f;
#endif
  constexpr float c1 = kExp2Fast[0], c2 = kExp2Fast[1], c3 = kExp2Fast[2];
  const float t = add(y, kRoundMagic);
  const float f = sub(y, sub(t, kRoundMagic));
  float p = fma(c3, f, c2);
  p = fma(p, f, c1);
  p = fma(p, f, 1.0f);
  const uint32_t bits = float_bits(p) + (float_bits(t) << 23);
  return x == x ? bits_float(bits < 0x00800000u ? 0 : bits) : x;
}

}  // namespace invar::cuda
