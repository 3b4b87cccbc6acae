// The tree over the K segments of a row-parallel linear, and which of its nodes a rank ships. Pure; order clause in README.md.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/numerics.h"

namespace invar {

using numerics::TreeNode;

// Where K is cut: segment i covers k in [begin[i], begin[i + 1]); some may be empty.
struct RowSegments {
  std::array<int64_t, numerics::kSegments + 1> begin{};

  static RowSegments cut(int64_t k, int64_t unit);
  bool empty(int first, int last) const { return begin[first] == begin[last]; }
};

// The maximal aligned subtrees of segments [first, last), ascending, wholly empty ones left out. 1, 2, 4 and 8 equal shares
// give one node each; other shares up to five.
std::vector<TreeNode> maximal_subtrees(const RowSegments& segments, int first, int last);

// Root of the tree from the nodes of all ranks for one output element. `nodes[i]` has value `values[i * stride]`; the nodes must
// cover every non-empty segment once, ascending. This is the reference order; vector versions must give its bits.
float merge_to_root(const std::vector<TreeNode>& nodes, const float* values, int64_t stride);
// The same for `count` consecutive elements: node i's values start at values[i]. root may alias values[0].
void merge_to_root(const std::vector<TreeNode>& nodes, const float* const* values, int64_t count, float* root);

// The additions that lead from the values of `nodes` to the value of `target`, in the tree's order; made once, applied to many
// elements. A target none of whose segments is among the nodes has the value +0.
class TreeMerge {
 public:
  TreeMerge(const std::vector<TreeNode>& nodes, TreeNode target);
  // out[e] for e in [0, count) from values[i][e] of node i. out may alias any values[i].
  void apply(const float* const* values, int64_t count, float* out) const;

 private:
  struct Step {
    int left, right;  // value[left] = RN(value[left] + value[right])
  };
  int plan(const std::vector<TreeNode>& nodes, TreeNode node);

  std::vector<Step> steps_;
  int first_ = -1;
};

}  // namespace invar
