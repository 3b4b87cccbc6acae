// A `portable` linear as its schedules see it, and running one under a given plan. For linear_column / linear_row and the bench.
#pragma once

#include "kernels/linear/cuda/portable_plan.h"

namespace invar::cuda::portable {

struct Work {
  LeafOrder order;
  Target target;
  const std::byte* weights = nullptr;  // packed
  int64_t inputs = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  bool aligned = false;  // rows of x begin at multiples of 16 bytes
  // Ragged groups with weights of their own: portable_grouped.h.
  int groups = 0;
  const std::byte* const* group_weights = nullptr;
  const int64_t* offsets = nullptr;
};
Work work_of(const Device& device, const ColumnLinear& problem);
Work work_of(const Device& device, const RowLinear& problem);
// The row-parallel part of a target.
void set_nodes(const RowSegments& segments, int first, int last, const std::vector<TreeNode>& nodes, float* partials,
               int64_t node_stride, Target* target);
Machine machine_of(const Device& device);
// `plan` is made for this work.
void run(const Device& device, const Work& work, const Plan& plan);

}  // namespace invar::cuda::portable
