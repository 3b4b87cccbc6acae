#include "kernels/linear/row_tree.h"

#include <cassert>
#include <cstring>
#include <optional>

namespace invar {

using numerics::kSegments;

namespace {

constexpr TreeNode kRoot{3, 0};
static_assert(1 << kRoot.level == kSegments);

void collect(const RowSegments& segments, int first, int last, TreeNode node, std::vector<TreeNode>* out) {
  const int begin = node.index << node.level, end = (node.index + 1) << node.level;
  if (end <= first || last <= begin || segments.empty(begin, end)) return;
  if (first <= begin && end <= last) {
    out->push_back(node);
    return;
  }
  collect(segments, first, last, {node.level - 1, node.index * 2}, out);
  collect(segments, first, last, {node.level - 1, node.index * 2 + 1}, out);
}

// -1: the whole subtree is missing.
int find(const std::vector<TreeNode>& nodes, TreeNode node) {
  for (size_t i = 0; i < nodes.size(); ++i)
    if (nodes[i].level == node.level && nodes[i].index == node.index) return static_cast<int>(i);
  return -1;
}

std::optional<float> value_of(const std::vector<TreeNode>& nodes, const float* values, int64_t stride, TreeNode node) {
  if (const int i = find(nodes, node); i >= 0) return values[i * stride];
  if (node.level == 0) return std::nullopt;
  const auto left = value_of(nodes, values, stride, {node.level - 1, node.index * 2});
  const auto right = value_of(nodes, values, stride, {node.level - 1, node.index * 2 + 1});
  if (left && right) return numerics::add(*left, *right);
  return left ? left : right;
}

}  // namespace

RowSegments RowSegments::cut(int64_t k, int64_t unit) {
  RowSegments segments;
  for (int i = 0; i <= kSegments; ++i) segments.begin[i] = numerics::segment_begin(k, unit, i);
  // What is left of k when the unit does not divide it belongs to the last segment; otherwise it would be lost.
  segments.begin[kSegments] = k;
  return segments;
}

std::vector<TreeNode> maximal_subtrees(const RowSegments& segments, int first, int last) {
  std::vector<TreeNode> nodes;
  collect(segments, first, last, kRoot, &nodes);
  return nodes;
}

float merge_to_root(const std::vector<TreeNode>& nodes, const float* values, int64_t stride) {
  return value_of(nodes, values, stride, kRoot).value_or(0.0f);
}

TreeMerge::TreeMerge(const std::vector<TreeNode>& nodes, TreeNode target) {
  assert(nodes.size() <= kSegments);
  first_ = plan(nodes, target);
}

int TreeMerge::plan(const std::vector<TreeNode>& nodes, TreeNode node) {
  if (const int i = find(nodes, node); i >= 0) return i;
  if (node.level == 0) return -1;
  const int left = plan(nodes, {node.level - 1, node.index * 2});
  const int right = plan(nodes, {node.level - 1, node.index * 2 + 1});
  if (left < 0) return right;
  if (right >= 0) steps_.push_back({left, right});
  return left;
}

void TreeMerge::apply(const float* const* values, int64_t count, float* out) const {
  constexpr int64_t kBlock = 256;
  if (first_ < 0) {
    for (int64_t i = 0; i < count; ++i) out[i] = 0.0f;
    return;
  }
  if (steps_.empty()) {
    if (out != values[first_]) std::memmove(out, values[first_], static_cast<size_t>(count) * sizeof(float));
    return;
  }
  alignas(64) float sums[kSegments][kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = count - begin < kBlock ? count - begin : kBlock;
    const float* current[kSegments];
    bool summed[kSegments] = {};
    for (const Step& step : steps_) {
      const float* a = summed[step.left] ? sums[step.left] : values[step.left] + begin;
      const float* b = summed[step.right] ? sums[step.right] : values[step.right] + begin;
      float* sum = sums[step.left];
#pragma GCC ivdep  // sum is a, b or neither, element for element
      for (int64_t i = 0; i < n; ++i) sum[i] = numerics::add(a[i], b[i]);
      summed[step.left] = true;
      current[step.left] = sum;
    }
    std::memcpy(out + begin, current[first_], static_cast<size_t>(n) * sizeof(float));
  }
}

void merge_to_root(const std::vector<TreeNode>& nodes, const float* const* values, int64_t count, float* root) {
  TreeMerge(nodes, kRoot).apply(values, count, root);
}

}  // namespace invar
