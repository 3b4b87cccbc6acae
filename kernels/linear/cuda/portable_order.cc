#include "kernels/linear/cuda/portable_order.h"

namespace invar::cuda::portable {

namespace {

void cut(ControlArm arm, int64_t rows, LeafOrder* order) {
  order->swapped = arm == ControlArm::kSwappedGroups;
  order->leaf = arm == ControlArm::kFixedSplitCount ? 0 : numerics::kColumnLeafPortable;
  order->pieces = rows <= 4 ? 4 : 1;
  for (int s = 0; s < order->spans; ++s) {
    const int32_t length = order->begin[s + 1] - order->begin[s];
    const int32_t leaves = length == 0 ? 0 : order->leaf ? (length + order->leaf - 1) / order->leaf : order->pieces;
    order->first_leaf[s + 1] = order->first_leaf[s] + leaves;
  }
}

static_assert(numerics::kColumnLeafPortable == numerics::kRowLeafPortable);

}  // namespace

LeafOrder column_leaves(ControlArm arm, int64_t rows, int64_t inputs) {
  LeafOrder order;
  order.spans = 1;
  order.begin[1] = static_cast<int32_t>(inputs);
  cut(arm, rows, &order);
  return order;
}

LeafOrder row_leaves(ControlArm arm, int64_t rows, const RowSegments& segments, int first, int last) {
  LeafOrder order;
  order.spans = numerics::kSegments;
  for (int s = 0; s <= numerics::kSegments; ++s) {
    const int inside = s < first ? first : s > last ? last : s;  // segments of other ranks are empty here
    order.begin[s] = static_cast<int32_t>(segments.begin[inside] - segments.begin[first]);
  }
  cut(arm, rows, &order);
  return order;
}

}  // namespace invar::cuda::portable
