// The schedule for at most 64 rows: weights stream through shared memory once, past the rows that wait there (plan and layout:
// tensor_core_decode_plan.h).
#pragma once

#include "kernels/linear/cuda/tensor_core_decode_plan.h"
#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

// x must be fit for a tensor map: 16-byte aligned, its stride a multiple of 8.
// With a gated width the outputs are eight of gate, eight of up, and so on (gated_linear.h), and y[row][gated_width] is their
// product; the plan's tiles must be multiples of 16.
void decode_column(const Device& device, const ColumnLinear& problem, const LinearShape& shape, const DecodePlan& plan,
                   int64_t gated_width = 0);
void decode_row(const Device& device, const RowLinear& problem, const LinearShape& shape, const DecodePlan& plan);

}  // namespace invar::cuda::tc
