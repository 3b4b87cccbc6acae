// The schedule for many rows: tiles of 128 rows by 64 to 256 outputs through wgmma, a persistent block on each multiprocessor.
#pragma once

#include "kernels/linear/cuda/tensor_core_prefill_plan.h"
#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

// x must be fit for a tensor map: 16-byte aligned, its stride a multiple of 8.
// With a gated_width the outputs are those of GatedWeights, alternating, and y is silu_mul of them, [rows][gated_width], bf16;
// the plan's tiles must gate (prefill_gates), or std::logic_error.
void prefill_column(const Device& device, const ColumnLinear& problem, const LinearShape& shape, const PrefillPlan& plan,
                    int64_t gated_width = 0);
// One node of problem.nodes, or y: `shape` is its segments.
void prefill_row(const Device& device, const RowLinear& problem, int node, const LinearShape& shape, const PrefillPlan& plan);

}  // namespace invar::cuda::tc
