// The rotation of a range of rows in lanes L: one text, instantiated for AVX2 and for AVX-512 in a file each.
#pragma once

#include "kernels/rope/schedules.h"

namespace invar {
namespace {

template <class L>
void rope_rows(const Rope& p, const rope_schedule::Angles& angles, int64_t begin, int64_t end) {
  const int64_t half = angles.half;
  for (int64_t row = begin; row < end; ++row) {
    const float* cosine = angles.table + p.positions[row] * 2 * half;
    const float* sine = cosine + half;
    for (int64_t head = 0; head < p.heads; ++head) {
      Bf16* x1 = p.x + row * p.x_stride + head * p.head_dim;
      Bf16* x2 = x1 + half;
      int64_t i = 0;
      for (; i + L::kWidth <= half; i += L::kWidth) {
        const typename L::V a = L::load_bf16(x1 + i), b = L::load_bf16(x2 + i);
        const typename L::V c = L::load(cosine + i), s = L::load(sine + i);
        L::store_bf16(x1 + i, L::fms(a, c, L::mul(b, s)));
        L::store_bf16(x2 + i, L::fma(b, c, L::mul(a, s)));
      }
      if (const int64_t left = half - i; left > 0) {
        const typename L::V a = L::load_bf16_part(x1 + i, left), b = L::load_bf16_part(x2 + i, left);
        const typename L::V c = L::load_part(cosine + i, left), s = L::load_part(sine + i, left);
        L::store_bf16_part(x1 + i, L::fms(a, c, L::mul(b, s)), left);
        L::store_bf16_part(x2 + i, L::fma(b, c, L::mul(a, s)), left);
      }
    }
  }
}

}  // namespace
}  // namespace invar
