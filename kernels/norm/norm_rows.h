// RMSNorm of a range of vectors in lanes L: one text, instantiated for AVX2 and for AVX-512 in a file each.
#pragma once

#include "kernels/norm/lane_sum.h"
#include "kernels/norm/norm.h"

namespace invar {
namespace {

template <class L>
float sum_of_squares(const Bf16* x, int64_t count) {
  return sum_lanes<L>(count, [&](int64_t j) {
    typename L::V acc = L::splat(0.0f);
    int64_t k = j;
    for (; k + L::kWidth <= count; k += numerics::kSumLanes) {
      const typename L::V v = L::load_bf16(x + k);
      acc = L::fma(v, v, acc);
    }
    // The last round may end inside this vector. A padding element adds +0 * +0 to a lane >= +0: no change.
    if (k < count) {
      const typename L::V v = L::load_bf16_part(x + k, count - k);
      acc = L::fma(v, v, acc);
    }
    return acc;
  });
}

// Vectors [begin, end) of the rows x groups of the problem. y may be x: a vector is read before it is written.
template <class L>
void norm_vectors(const RmsNorm& p, int64_t begin, int64_t end) {
  int64_t row = begin / p.groups, group = begin % p.groups;
  for (int64_t v = begin; v < end; ++v) {
    const Bf16* x = p.x + row * p.x_stride + group * p.width;
    Bf16* y = p.y + row * p.y_stride + group * p.width;
    const float mean = sum_of_squares<L>(x, p.width) / static_cast<float>(p.width);
    const typename L::V r = L::splat(1.0f / L::sqrt(mean + p.epsilon));
    int64_t k = 0;
    for (; k + L::kWidth <= p.width; k += L::kWidth)
      L::store_bf16(y + k, L::mul(L::load_bf16(p.weight + k), L::bf(L::mul(L::load_bf16(x + k), r))));
    if (const int64_t left = p.width - k; left > 0)
      L::store_bf16_part(y + k, L::mul(L::load_bf16_part(p.weight + k, left), L::bf(L::mul(L::load_bf16_part(x + k, left), r))),
                         left);
    if (++group == p.groups) group = 0, ++row;
  }
}

}  // namespace
}  // namespace invar
