// The tc profile's linears on Hopper's tensor cores: the layout of weights and one entry for each operation of linear.h.
//
// Layout of packed weights: [ceil(inputs / 64)][outputs rounded up to 64][64] bf16, the 16-byte piece c of output r's line at
// c ^ (r mod 8), zeros in the padding. So any 8 n outputs times 64 inputs are one stretch of memory that a bulk copy brings to
// shared memory ready for wgmma and ldmatrix (128-byte swizzle), whatever the schedule.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/linear/gated_linear.h"
#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

size_t packed_bytes(int64_t outputs, int64_t inputs);

// Rows first_output .. first_output + count of a table: host rows of [inputs], row_stride elements apart. Has read them when it
// returns. `packed` is 128-byte aligned device memory of packed_bytes, zeroed before its first rows come. With a run, as many
// outputs are left out after each `run` rows.
void pack_rows(const Device& device, std::byte* packed, int64_t outputs, int64_t inputs, int64_t first_output,
               const Bf16* host_rows, int64_t count, int64_t row_stride, int64_t run = 0);

// y[r] = row ids[r] - first_id of the table (an embedding); ids on the device. A row whose id the table does not hold stays as it
// is. y_stride in elements.
void gather_rows(const Device& device, const std::byte* packed, int64_t outputs, int64_t inputs, const int32_t* ids,
                 int64_t first_id, int64_t count, Bf16* y, int64_t y_stride);

void linear_column(const Device& device, const ColumnLinear& problem);
void linear_row(const Device& device, const RowLinear& problem);
bool row_finishes(const Device& device, const RowLinear& problem);
bool row_adds_residual(const RowLinear& problem);  // of a problem that row_finishes
bool row_sends(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last,
               const std::vector<TreeNode>& nodes);
bool row_deals(const Device& device, int64_t rows, int64_t outputs, const RowSegments& segments, int first, const TreeNode& node);
// Alternating weights only. False: no schedule takes it in one pass, nothing was done.
bool linear_gated(const Device& device, const GatedLinear& problem);

}  // namespace invar::cuda::tc
