// The scalar pieces of the attention order (README.md) that every schedule shares: which keys a query sees, when the online
// softmax moves its reference, how splits merge. No schedule may decide any of these by itself.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::attention_order {

inline constexpr int kBlock = numerics::kAttentionBlock;
inline constexpr int kSplit = numerics::kAttentionSplit;
inline constexpr int kSumLanes = numerics::kAttentionSumLanes;

// The reference of a split moves only when a block's maximum passes it by more than this many powers of two. Then a later
// block rarely rescales the accumulators; p stays below 2^8 (plus a rounding), far from any overflow, and bf16 keeps its
// relative accuracy at any size.
inline constexpr float kReferenceSlack = numerics::kAttentionSlack;

struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};

INVAR_HD KeyRange visible_keys(int64_t position, int64_t window) {
  const int64_t end = position + 1;
  return KeyRange{window > 0 && end > window ? end - window : 0, end};
}

// c of the contract: scores are multiplied by it once, inside the exponent.
INVAR_HD float exponent_scale(float scale) { return numerics::mul(scale, numerics::kLog2e); }

// Weight of a state with reference `from` seen from reference `to`; exactly 1 when they are equal.
INVAR_HD float rescale(float from, float to) { return numerics::exp2_fast(numerics::sub(from, to)); }

// tree over the lanes of the denominator.
INVAR_HD float lane_tree(const float* l) {
  using numerics::add;
  return add(add(add(l[0], l[1]), add(l[2], l[3])), add(add(l[4], l[5]), add(l[6], l[7])));
}

}  // namespace invar::attention_order
