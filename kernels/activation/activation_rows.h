// silu(gate) * up and the residual add in lanes L: one text, instantiated for AVX2 and for AVX-512 in a file each.
#pragma once

#include "kernels/activation/activation.h"

namespace invar {
namespace {

// RN(RN(g * sigmoid(g)) * up). A NaN gate stays NaN whatever E(NaN) is, because g itself is a factor.
template <class L>
typename L::V silu_mul_lanes(typename L::V g, typename L::V up) {
  const typename L::V one = L::splat(1.0f);
  const typename L::V e = L::exp2(L::mul(g, L::splat(-numerics::kLog2e)));
  return L::mul(L::mul(g, L::div(one, L::add(one, e))), up);
}

template <class L>
void silu_mul_rows(const SiluMul& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const Bf16* gate = p.x + r * p.x_stride;
    const Bf16* up = gate + p.width;
    Bf16* y = p.y + r * p.y_stride;
    int64_t i = 0;
    for (; i + L::kWidth <= p.width; i += L::kWidth)
      L::store_bf16(y + i, silu_mul_lanes<L>(L::load_bf16(gate + i), L::load_bf16(up + i)));
    if (const int64_t left = p.width - i; left > 0)
      L::store_bf16_part(y + i, silu_mul_lanes<L>(L::load_bf16_part(gate + i, left), L::load_bf16_part(up + i, left)), left);
  }
}

template <class L>
void residual_range(Bf16* x, const Bf16* y, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + L::kWidth <= end; i += L::kWidth) L::store_bf16(x + i, L::add(L::load_bf16(x + i), L::load_bf16(y + i)));
  if (const int64_t left = end - i; left > 0)
    L::store_bf16_part(x + i, L::add(L::load_bf16_part(x + i, left), L::load_bf16_part(y + i, left)), left);
}

}  // namespace
}  // namespace invar
