// Linears of ragged groups of rows, a matrix for each group, in one launch (experts), by the `portable` profile. Bits are those
// of linear_column and linear_row on each group. The problem is described in tensor_core_grouped.h.
#pragma once

#include "kernels/linear/cuda/tensor_core_grouped.h"

namespace invar::cuda::portable {

using tc::GroupedLinear;

// Can these take the shape? K and the segments must be multiples of 16, x 16-byte aligned with a stride that is a multiple of 8;
// a control arm that moves k refuses everything.
bool grouped_column_fits(const Device& device, const GroupedLinear& problem);
bool grouped_row_fits(const Device& device, const GroupedLinear& problem, const RowSegments& segments, int first, int last,
                      const std::vector<TreeNode>& nodes);

void grouped_column(const Device& device, const GroupedLinear& problem, Bf16* y, int64_t y_stride);
// partials[i * node_stride + row * outputs + n] for node i.
void grouped_row(const Device& device, const GroupedLinear& problem, const RowSegments& segments, int first, int last,
                 const std::vector<TreeNode>& nodes, float* partials, int64_t node_stride);

}  // namespace invar::cuda::portable
