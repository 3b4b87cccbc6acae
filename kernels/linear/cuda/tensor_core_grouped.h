// Linears of ragged groups of rows, a matrix for each group, in one launch (experts). Bits are those of linear_column and
// linear_row on each group.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

inline constexpr int kMostGroups = 256;

// Pointers are device memory, what they point at may be an earlier kernel's work.
struct GroupedLinear {
  int groups = 0;                             // at most kMostGroups
  const std::byte* const* weights = nullptr;  // [groups]: packed weights (PackedWeights::data), all [outputs][inputs]
  const int64_t* offsets = nullptr;           // [groups + 1]: rows of group g are [offsets[g], offsets[g + 1])
  int64_t rows = 0;                           // of x; at least the last offset
  int64_t outputs = 0;
  int64_t inputs = 0;
  const Bf16* x = nullptr;
  int64_t x_stride = 0;
  // grouped_gated alone takes it: [rows], row i of the groups is row index[i] of x.
  const int32_t* index = nullptr;
  // The launch right before this one was another of these with the same offsets: this one may look at them before it has ended.
  bool settled = false;
  bool many_rows = false;  // for tests and benches: the schedule for many rows, however few there are; the same bits
};

// Can these take the shape? Else the caller goes through the groups one by one. inputs (every segment's end) must be a multiple
// of 64, x 16-byte aligned with a stride that is a multiple of 8; a control arm that moves k refuses everything.
bool grouped_column_fits(const Device& device, const GroupedLinear& problem);
bool grouped_row_fits(const Device& device, const GroupedLinear& problem, const RowSegments& segments, int first, int last,
                      const std::vector<TreeNode>& nodes);

void grouped_column(const Device& device, const GroupedLinear& problem, Bf16* y, int64_t y_stride);
// GatedWeights, alternating: y[row][width] = silu_mul of the pairs.
void grouped_gated(const Device& device, const GroupedLinear& problem, int64_t width, Bf16* y, int64_t y_stride);
// Would it take an index? Else the caller gathers the rows first.
bool grouped_gated_takes_index(const GroupedLinear& problem);
// partials[i * node_stride + row * outputs + n] for node i. With y, for the root alone: y = bf(root), [rows][outputs], instead;
// partials is scratch.
void grouped_row(const Device& device, const GroupedLinear& problem, const RowSegments& segments, int first, int last,
                 const std::vector<TreeNode>& nodes, float* partials, int64_t node_stride, Bf16* y = nullptr);

}  // namespace invar::cuda::tc
