// Moving rows on a GPU.
#pragma once

#include "kernels/rows/rows.h"

namespace invar::cuda {

void gather_rows(const Device& device, const MoveRows& problem);
void scatter_rows(const Device& device, const MoveRows& problem);
void join_shards(const Device& device, const JoinShards& problem);

}  // namespace invar::cuda
