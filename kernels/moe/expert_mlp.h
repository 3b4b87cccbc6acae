// The MLPs of the experts a rank holds, over ragged groups of rows (clause 10): bf rows in, row-parallel partials out.
#pragma once

#include <span>

#include "kernels/linear/linear.h"

namespace invar {

struct ExpertWeights {
  PackedWeights gate_up;  // [2 * local intermediate][hidden]: gate outputs first, then up
  PackedWeights down;     // [hidden][local intermediate]
};

// Rows of expert e are [offsets[e], offsets[e + 1]) of x. partials[(i * rows + m) * hidden + n] for node i, as RowLinear.
struct ExpertMlp {
  std::span<const int64_t> offsets;  // experts + 1
  std::span<const ExpertWeights* const> experts;
  const Bf16* x = nullptr;  // [rows][hidden]
  int64_t hidden = 0;
  RowSegments segments;
  int first = 0;
  int last = numerics::kSegments;
  std::vector<TreeNode> nodes;
  float* partials = nullptr;
};
void expert_mlp(const Device& device, const ExpertMlp& problem);

}  // namespace invar
