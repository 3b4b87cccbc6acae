// The order clause of `portable` (L1-L3) as the GPU's schedules read it: spans of k cut into leaves by a formula instead of a
// list, so that any K fits into the parameters of a launch. Pure; portable_order_test.cc holds it against k_order.h.
#pragma once

#include <cstdint>

#include "kernels/linear/linear.h"

namespace invar::cuda::portable {

struct LeafRange {
  int32_t begin, end;
};

// A column-parallel linear has one span, its whole K; a row-parallel one has a span for each of the 8 segments, some empty.
struct LeafOrder {
  int32_t spans = 0;
  int32_t begin[numerics::kSegments + 1] = {};       // span s covers k in [begin[s], begin[s + 1]), from the weights' first k on
  int32_t first_leaf[numerics::kSegments + 1] = {};  // leaves of span s: [first_leaf[s], first_leaf[s + 1])
  int32_t leaf = 0;                                  // k of a leaf; 0: a span is cut into `pieces` (kFixedSplitCount)
  int32_t pieces = 0;
  bool swapped = false;  // kSwappedGroups

  INVAR_HD int32_t leaves() const { return first_leaf[spans]; }
  // May be empty where `pieces` cut a short span: such a leaf is none.
  INVAR_HD LeafRange range(int32_t span, int32_t index) const {
    const int32_t from = begin[span], length = begin[span + 1] - from, i = index - first_leaf[span];
    if (leaf == 0)
      return {static_cast<int32_t>(from + int64_t{i} * length / pieces),
              static_cast<int32_t>(from + int64_t{i + 1} * length / pieces)};
    return whole_leaf(span, index);
  }
  // The same where leaf > 0; without a division.
  INVAR_HD LeafRange whole_leaf(int32_t span, int32_t index) const {
    const int32_t first = begin[span] + (index - first_leaf[span]) * leaf, end = begin[span + 1];
    return {first, first + leaf < end ? first + leaf : end};
  }
  // The i-th k of a leaf's chain.
  INVAR_HD int32_t chain(LeafRange r, int32_t i) const {
    constexpr int32_t kGroup = numerics::kTensorCoreGroup;
    const int32_t length = r.end - r.begin;
    if (!swapped || length <= kGroup || i >= 2 * kGroup) return r.begin + i;
    const int32_t second = (length < 2 * kGroup ? length : 2 * kGroup) - kGroup;  // k of the second group, which comes first
    if (i < second) return r.begin + kGroup + i;
    return i - second < kGroup ? r.begin + i - second : r.begin + i;
  }
};

LeafOrder column_leaves(ControlArm arm, int64_t rows, int64_t inputs);
LeafOrder row_leaves(ControlArm arm, int64_t rows, const RowSegments& segments, int first, int last);

}  // namespace invar::cuda::portable
