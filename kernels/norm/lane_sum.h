// A row sum (clause 2) in vector lanes, for values that are +0 or greater: squares, exponentials.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar {
namespace {

// lane_at(j) gives the virtual lanes j .. j + L::kWidth - 1, each a chain from +0 of values >= +0, and +0 where there is no
// element. The clause skips missing lanes; adding their +0 is the same: RN(v + +0) = v for +0, for v > 0, for +inf and for NaN
// (only -0 would change, and such a chain is never -0). So the strides are taken as if all 1024 lanes were there, except that
// those above `count` are left out altogether where that is cheap.
template <class L, class LaneAt>
float sum_lanes(int64_t count, const LaneAt& lane_at) {
  using V = typename L::V;
  constexpr int kLast = 128;  // strides 512, 256 and 128 fold eight groups of lanes into this many
  constexpr int kVectors = kLast / L::kWidth;
  static_assert(numerics::kSumLanes == 8 * kLast);
  V sum[kVectors];
  if (count <= kLast) {
    for (int v = 0; v < kVectors; ++v) sum[v] = lane_at(v * L::kWidth);
  } else {
    for (int v = 0; v < kVectors; ++v) {
      const auto group = [&](int g) { return lane_at(g * kLast + v * L::kWidth); };
      const V even = L::add(L::add(group(0), group(4)), L::add(group(2), group(6)));
      const V odd = L::add(L::add(group(1), group(5)), L::add(group(3), group(7)));
      sum[v] = L::add(even, odd);
    }
  }
  for (int half = kVectors / 2; half > 0; half /= 2)
    for (int v = 0; v < half; ++v) sum[v] = L::add(sum[v], sum[v + half]);
  return L::halve(sum[0]);
}

}  // namespace
}  // namespace invar
