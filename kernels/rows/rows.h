// Moving whole rows: by an index, and shards side by side. Bytes only, no arithmetic.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/device/device.h"

namespace invar {

// An array of row numbers, 32 or 64 bits wide, [count]. A negative one is passed over: that row is neither read nor written.
class RowIndex {
 public:
  RowIndex() = default;
  RowIndex(const int32_t* rows) : narrow_(rows) {}  // NOLINT: an array is an index
  RowIndex(const int64_t* rows) : wide_(rows) {}    // NOLINT
  INVAR_HD int64_t operator[](int64_t i) const { return narrow_ ? narrow_[i] : wide_[i]; }

 private:
  const int32_t* narrow_ = nullptr;
  const int64_t* wide_ = nullptr;
};

// Rows of row_bytes bytes, strides in bytes; `from` and `to` do not overlap.
struct MoveRows {
  int64_t count = 0;
  int64_t row_bytes = 0;
  const void* from = nullptr;
  int64_t from_stride = 0;
  RowIndex index;
  void* to = nullptr;
  int64_t to_stride = 0;
};
// Row i of `to` = row index[i] of `from`.
void gather_rows(const Device& device, const MoveRows& problem);
// Row index[i] of `to` = row i of `from`; the index names no row twice.
void scatter_rows(const Device& device, const MoveRows& problem);

// y[r] = shards[0][r], shards[1][r], .. one behind the other: the vocabulary shards of the ranks become whole rows of logits.
// Shard s is [rows][widths[s]] without gaps, y is [rows][sum of widths]. At most 8 shards; spans are host memory.
struct JoinShards {
  int64_t rows = 0;
  std::span<const float* const> shards;
  std::span<const int64_t> widths;
  float* y = nullptr;
};
void join_shards(const Device& device, const JoinShards& problem);

}  // namespace invar
