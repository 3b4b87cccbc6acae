// The order clause in the form that kernels of the tc profile take as a parameter: small, regular, the same on host and device.
// tensor_core_order_test.cc holds it against k_order.h and row_tree.h.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

// K as spans (a column's whole K, or the segments a rank holds, counted from the first one's begin), each cut into leaves.
struct SpanOrder {
  int64_t begin[numerics::kSegments + 1] = {};  // span i is k in [begin[i], begin[i + 1])
  int spans = 1;
  int first_slot = 0;    // segment of span 0
  int64_t leaf = 0;      // longest leaf; 0: a span is one leaf
  int pieces = 0;        // not 0 (control arm): a span is this many equal leaves
  bool swapped = false;  // control arm: the first two k16 groups of a leaf change places
};

SpanOrder column_spans(ControlArm arm, int64_t rows, int64_t inputs);
SpanOrder row_spans(ControlArm arm, int64_t rows, const RowSegments& segments, int first, int last);

struct LeafRange {
  int64_t begin, end;  // equal: no leaf
};
INVAR_HD int64_t leaf_count(const SpanOrder& order, int span) {
  const int64_t length = order.begin[span + 1] - order.begin[span];
  if (length == 0) return 0;
  if (order.pieces) return order.pieces;
  return order.leaf ? (length + order.leaf - 1) / order.leaf : 1;
}
INVAR_HD LeafRange leaf_range(const SpanOrder& order, int span, int64_t i) {
  const int64_t begin = order.begin[span], end = order.begin[span + 1], length = end - begin;
  if (order.pieces) return {begin + i * length / order.pieces, begin + (i + 1) * length / order.pieces};
  if (!order.leaf) return {begin, end};
  const int64_t from = begin + i * order.leaf;
  return {from, from + order.leaf < end ? from + order.leaf : end};
}
// First k of group i of a leaf.
INVAR_HD int64_t group_begin(const SpanOrder& order, const LeafRange& leaf, int64_t i) {
  constexpr int64_t kGroup = numerics::kTensorCoreGroup;
  const bool swap = order.swapped && i < 2 && leaf.end - leaf.begin > kGroup;
  return leaf.begin + (swap ? 1 - i : i) * kGroup;
}

// Which values of the segment tree leave a kernel. Node (level, index) has the number node_number(level, index), 0 .. 14.
INVAR_HD int node_number(int level, int index) { return 16 - (16 >> level) + index; }
struct TreeDelivery {
  uint8_t held = 0;       // bit i: segment i is here and not empty
  int8_t place[15] = {};  // of a node among those delivered; -1: it is not
};
TreeDelivery tree_delivery(const RowSegments& segments, int first, int last, const std::vector<TreeNode>& nodes);
inline TreeDelivery tree_delivery(const RowLinear& p) { return tree_delivery(p.segments, p.first, p.last, p.nodes); }

// deliver(place, value) for each node that leaves, from the values of the held segments; the others' are not looked at.
template <class Deliver>
INVAR_HD void merge_segments(const TreeDelivery& tree, const float (&segment)[numerics::kSegments], const Deliver& deliver) {
  static_assert(numerics::kSegments == 8);
  float value[8];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int i = 0; i < 8; ++i) {
    value[i] = segment[i];
    if (tree.place[i] >= 0) deliver(tree.place[i], value[i]);
  }
  unsigned held = tree.held;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int level = 1; level <= 3; ++level) {
    unsigned above = 0;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int i = 0; i < 8 >> level; ++i) {
      const bool left = held >> (2 * i) & 1, right = held >> (2 * i + 1) & 1;
      const float l = value[2 * i], r = value[2 * i + 1];
      value[i] = left && right ? numerics::add(l, r) : left ? l : r;
      above |= static_cast<unsigned>(left || right) << i;
      const int place = tree.place[16 - (16 >> level) + i];
      if (place >= 0) deliver(place, value[i]);
    }
    held = above;
  }
}

}  // namespace invar::cuda::tc
