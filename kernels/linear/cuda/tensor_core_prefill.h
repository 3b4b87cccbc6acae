// The schedule for many rows: tiles of 128 rows by 128 to 256 outputs through wgmma, a persistent block on each multiprocessor.
#pragma once

#include "kernels/linear/cuda/tensor_core_prefill_plan.h"
#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

// x must be fit for a tensor map: 16-byte aligned, its stride a multiple of 8.
void prefill_column(const Device& device, const ColumnLinear& problem, const LinearShape& shape, const PrefillPlan& plan);
// One node of problem.nodes: `shape` is its segments.
void prefill_row(const Device& device, const RowLinear& problem, int node, const LinearShape& shape, const PrefillPlan& plan);

}  // namespace invar::cuda::tc
