// The last step of a row-parallel linear: values of tree nodes, gathered from the ranks, become the root and the bf16 result
// (clause 4; kernels/linear/README.md). And the same fused with what follows in a decoder: residual and norm.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/device/device.h"
#include "kernels/numerics.h"

namespace invar {

// y[e] = bf(RN(root[e] + bias[e mod outputs])), or bf(root[e]) without bias, for elements e in [begin, end) of [rows][outputs].
// root[e] comes from values[i][e - begin] of nodes[i] in the order of the tree; +0 without any node.
struct MergeNodes {
  int64_t outputs = 0;
  int64_t begin = 0;
  int64_t end = 0;
  std::span<const numerics::TreeNode> nodes;  // host; at most kSegments, disjoint, ascending
  std::array<const float*, numerics::kSegments> values{};
  // ControlArm::kRankOrderAllReduce: the values are added as they are listed, left to right, whatever their nodes.
  bool listed_order = false;
  const Bf16* bias = nullptr;  // [outputs] or null; constant data
  Bf16* y = nullptr;           // element 0 of [rows][outputs], wherever [begin, end) lies
};
void merge_nodes(const Device& device, const MergeNodes& problem);
void merge_nodes_reference(const MergeNodes& problem);

// The control arm's sum over one rank's own segments: sum[e] = values[0][e] + values[1][e] + .. from left to right, rounded at
// each step; +0 for no values. sum may be values[0].
void add_listed(const Device& device, std::span<const float* const> values, int64_t count, float* sum);

// merge_nodes() of whole rows followed by residual_rms_norm() of its result, in one launch: x[r] = residual(x[r], y[r]),
// normed[r] = rms_norm(x[r]). `merge` covers rows * outputs elements from 0; its y may be null where nobody reads it.
struct MergeResidualNorm {
  MergeNodes merge;
  Bf16* x = nullptr;             // [rows][outputs]
  const Bf16* weight = nullptr;  // [outputs], constant data
  float epsilon = 0;
  Bf16* normed = nullptr;  // [rows][outputs]; overlaps nothing else
};
void merge_residual_norm(const Device& device, const MergeResidualNorm& problem);

}  // namespace invar
