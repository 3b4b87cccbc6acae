// The scalar pieces of the attention order (README.md) that every schedule shares: which keys a query sees, when the online
// softmax moves its reference, how splits merge. No schedule may decide any of these by itself.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::attention_order {

inline constexpr int kBlock = numerics::kAttentionBlock;
inline constexpr int kSplit = numerics::kAttentionSplit;
inline constexpr int kSumLanes = numerics::kAttentionSumLanes;  // portable; tc has a chain instead

struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};

INVAR_HD KeyRange visible_keys(int64_t position, int64_t window) {
  const int64_t end = position + 1;
  return KeyRange{window > 0 && end > window ? end - window : 0, end};
}

// c of the contract: what a score times it is, is a power of two.
INVAR_HD float exponent_scale(float scale) { return numerics::mul(scale, numerics::kLog2e); }

// A split's reference and what depends on it. `c` as above, `step` = RN(c * kAttentionStep).
INVAR_HD float exponent_step(float c) { return numerics::mul(c, numerics::kAttentionStep); }
// Whether a block whose largest visible score (NaN passed over) is `largest` moves the reference.
INVAR_HD bool moves(float largest, float step, float reference) {
  return numerics::fma(largest, step, numerics::attention_offset(reference)) >= numerics::kAttentionMost;
}
INVAR_HD float moved_reference(float largest, float c, float reference) {
  return numerics::attention_reference(reference, numerics::mul(largest, c));
}
// Weight of a key with score s: numerics::attention_weight(fma(s, step, attention_offset(reference))).

// Factor of a state with reference `from` seen from reference `to` >= from; exactly 1 when they are equal.
INVAR_HD float rescale(float from, float to) { return numerics::attention_rescale(from, to); }

// portable: tree over the lanes of the denominator.
INVAR_HD float lane_tree(const float* l) {
  using numerics::add;
  return add(add(add(l[0], l[1]), add(l[2], l[3])), add(add(l[4], l[5]), add(l[6], l[7])));
}

}  // namespace invar::attention_order
