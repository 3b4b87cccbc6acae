// Linears of the `portable` profile on CUDA cores: fp32 fma chains, k ascending (clauses L1-L3). Layout: portable_layout.h.
#pragma once

#include "kernels/linear/linear.h"

namespace invar::cuda::portable {

size_t packed_bytes(int64_t outputs, int64_t inputs);
// host_rows: row r at host_rows + r * row_stride, to outputs [first_output, first_output + count). May be changed after the call.
void pack_rows(const Device& device, std::byte* packed, int64_t outputs, int64_t inputs, int64_t first_output,
               const Bf16* host_rows, int64_t count, int64_t row_stride);
// y[r * y_stride ..] = row ids[r] - first_id; a row whose id is not among the outputs stays as it is.
void gather_rows(const Device& device, const std::byte* packed, int64_t outputs, int64_t inputs, const int32_t* ids,
                 int64_t first_id, int64_t count, Bf16* y, int64_t y_stride);

void linear_column(const Device& device, const ColumnLinear& problem);
void linear_row(const Device& device, const RowLinear& problem);

}  // namespace invar::cuda::portable
