// Merging tree nodes on a GPU.
#pragma once

#include "kernels/merge/merge.h"

namespace invar::cuda {

void merge_nodes(const Device& device, const MergeNodes& problem);
void add_listed(const Device& device, std::span<const float* const> values, int64_t count, float* sum);
void merge_residual_norm(const Device& device, const MergeResidualNorm& problem);

}  // namespace invar::cuda
