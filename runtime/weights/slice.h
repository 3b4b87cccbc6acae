// The part of a tensor that read_rows is asked for, checked.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace invar {

struct Slice {
  int64_t row0 = 0;
  int64_t rows = 0;
  int64_t col0 = 0;
  int64_t cols = 0;
};

// Columns of a tensor seen as rows x columns: one dimension is a single column.
int64_t columns_of(const std::vector<int64_t>& shape);

// InvalidArgument naming tensor and slice: outside of `shape` (empty: no such tensor), or out_stride too small for cols.
absl::Status check_slice(std::string_view tensor, const std::vector<int64_t>& shape, const Slice& slice, int64_t out_stride);

}  // namespace invar
