// What plans look at: a linear whose leaves begin and end at multiples of 64, and the chip. Pure, tested without a GPU.
#pragma once

#include <optional>
#include <vector>

#include "kernels/linear/linear.h"

namespace invar::cuda::tc {

// k is counted in blocks of 64.
struct LinearShape {
  int rows = 0;
  int outputs = 0;
  bool by_segments = false;     // row-parallel: a leaf is a segment, its value leaves by the tree; else there is one leaf
  bool whole_tree = false;      // the leaves are all the segments of the one node that leaves
  std::vector<int> leaf_begin;  // leaf i is blocks [leaf_begin[i], leaf_begin[i + 1])
  int leaves() const { return static_cast<int>(leaf_begin.size()) - 1; }
};
// Nothing where a leaf does not begin and end at a multiple of 64, or where there is none.
std::optional<LinearShape> linear_shape(int64_t rows, int64_t outputs, int64_t inputs);
std::optional<LinearShape> linear_shape(const RowLinear& problem);
std::optional<LinearShape> linear_shape(int64_t rows, int64_t outputs, const RowSegments& segments, int first, int last,
                                        const std::vector<TreeNode>& nodes);
// Of one node's segments alone, blocks counted from segment `first`; nothing where one of them is empty.
std::optional<LinearShape> linear_shape(int64_t rows, int64_t outputs, const RowSegments& segments, int first, TreeNode node);

struct Chip {
  int multiprocessors = 132;
  int block_shared = 232448;  // bytes of shared memory that one block may have
  int shared = 233472;        // and all blocks of a multiprocessor, 1 KB each for the system included
};
// In a build with CUDA.
Chip chip_of(const Device& device);

}  // namespace invar::cuda::tc
