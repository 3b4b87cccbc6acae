#include "kernels/linear/cuda/tensor_core_shape.h"

#include <limits>

#include "kernels/linear/cuda/tensor_core_layout.h"

namespace invar::cuda::tc {
namespace {

bool countable(int64_t rows, int64_t outputs) {
  constexpr int64_t kMost = std::numeric_limits<int>::max() / 2;
  return rows > 0 && rows < kMost && outputs > 0 && outputs < kMost;
}

// Segments [begin, end) of a rank whose first one is `first`; empty ones left out.
std::optional<LinearShape> segments_shape(int64_t rows, int64_t outputs, const RowSegments& segments, int first, int begin,
                                          int end) {
  if (!countable(rows, outputs)) return std::nullopt;
  LinearShape shape{.rows = static_cast<int>(rows), .outputs = static_cast<int>(outputs), .by_segments = true};
  for (int i = begin; i <= end; ++i) {
    const int64_t k = segments.begin[i] - segments.begin[first];
    if (k % kBlockInputs) return std::nullopt;
    if (i == begin || !segments.empty(i - 1, i)) shape.leaf_begin.push_back(static_cast<int>(k / kBlockInputs));
  }
  if (shape.leaves() == 0) return std::nullopt;
  return shape;
}

}  // namespace

std::optional<LinearShape> linear_shape(int64_t rows, int64_t outputs, int64_t inputs) {
  if (!countable(rows, outputs) || inputs == 0 || inputs % kBlockInputs) return std::nullopt;
  return LinearShape{.rows = static_cast<int>(rows),
                     .outputs = static_cast<int>(outputs),
                     .leaf_begin = {0, static_cast<int>(input_blocks(inputs))}};
}

std::optional<LinearShape> linear_shape(const RowLinear& p) {
  return linear_shape(p.rows, p.weights->outputs(), p.segments, p.first, p.last, p.nodes);
}

std::optional<LinearShape> linear_shape(int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last,
                                        const std::vector<TreeNode>& nodes) {
  auto shape = segments_shape(rows, outputs, segments, first, first, last);
  if (shape) shape->whole_tree = nodes.size() == 1 && shape->leaves() == 1 << nodes[0].level;
  return shape;
}

std::optional<LinearShape> linear_shape(int64_t rows, int64_t outputs, const RowSegments& segments, int first, TreeNode node) {
  const int begin = node.index << node.level, end = (node.index + 1) << node.level;
  auto shape = segments_shape(rows, outputs, segments, first, begin, end);
  if (!shape || shape->leaves() != end - begin) return std::nullopt;
  shape->whole_tree = true;
  return shape;
}

}  // namespace invar::cuda::tc
