#include "kernels/linear/cuda/tensor_core_order.h"

#include <algorithm>

namespace invar::cuda::tc {
namespace {

void break_order(ControlArm arm, int64_t rows, SpanOrder* order) {
  order->swapped = arm == ControlArm::kSwappedGroups;
  if (arm == ControlArm::kFixedSplitCount) order->pieces = rows <= 4 ? 4 : 1;
}

}  // namespace

SpanOrder column_spans(ControlArm arm, int64_t rows, int64_t inputs) {
  SpanOrder order;
  order.begin[1] = inputs;
  order.leaf = numerics::column_leaf(Profile::kTc);
  break_order(arm, rows, &order);
  return order;
}

SpanOrder row_spans(ControlArm arm, int64_t rows, const RowSegments& segments, int first, int last) {
  SpanOrder order;
  order.spans = last - first;
  order.first_slot = first;
  for (int i = first; i <= last; ++i) order.begin[i - first] = segments.begin[i] - segments.begin[first];
  order.leaf = numerics::row_leaf(Profile::kTc);
  break_order(arm, rows, &order);
  return order;
}

TreeDelivery tree_delivery(const RowSegments& segments, int first, int last, const std::vector<TreeNode>& nodes) {
  TreeDelivery tree;
  std::fill_n(tree.place, 15, static_cast<int8_t>(-1));
  for (int i = first; i < last; ++i)
    if (!segments.empty(i, i + 1)) tree.held |= static_cast<uint8_t>(1 << i);
  for (size_t i = 0; i < nodes.size(); ++i) tree.place[node_number(nodes[i].level, nodes[i].index)] = static_cast<int8_t>(i);
  return tree;
}

}  // namespace invar::cuda::tc
