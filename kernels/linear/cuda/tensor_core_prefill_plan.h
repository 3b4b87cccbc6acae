// How a linear with many rows is laid over the GPU: pure arithmetic, tested without one. Any plan gives the same bits.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/linear/cuda/tensor_core_shape.h"

namespace invar::cuda::tc {

inline constexpr int kPrefillTileRows = 128;

// How the leaves of an output meet in a block.
enum class PrefillMerge : uint8_t {
  kChain,  // there is one leaf: columns, one segment
  kTurns,  // the same, and the warpgroups take turns: a tile each, one's outputs leave while the other one multiplies
  kFold,   // two segments
  kTree,   // four or eight segments
};

// Can a tile write silu_mul of gate and up instead of its outputs (gated_linear.h)?
constexpr bool prefill_gates(PrefillMerge merge, int columns) { return merge == PrefillMerge::kChain && columns % 64 == 0; }

struct PrefillPlan {
  PrefillMerge merge = PrefillMerge::kChain;
  int columns = 128;  // outputs of a tile
  int cluster = 1;    // blocks with the same outputs and neighbouring rows: each fetches its part of the weights for both
  int band = 16;      // tiles of rows that are done before the next ones: their part of x stays in the second-level cache
  int row_tiles = 1, column_tiles = 1;
  int grid = 1;
  std::string describe() const;
};

// Nothing where the merge does not fit the leaves or no kernel has such a tile.
std::optional<PrefillPlan> prefill_plan(const LinearShape& shape, PrefillMerge merge, int columns, int cluster, const Chip& chip);
// The best of them; nothing for three, five, six or seven segments, which are no node of the tree. Of a gated linear's
// plans those whose tiles gate.
std::optional<PrefillPlan> prefill_plan(const LinearShape& shape, const Chip& chip, bool gated = false);
std::vector<PrefillPlan> prefill_plans(const LinearShape& shape, const Chip& chip);

}  // namespace invar::cuda::tc
