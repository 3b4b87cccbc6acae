// What the blocks of the prefill schedule share: the task, a tile's place in shared memory, which tiles are whose.
#pragma once

#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_prefill_plan.h"
#include "kernels/linear/cuda/tensor_core_rows_out.cuh"

namespace invar::cuda::tc::prefill {

constexpr int kTileRows = kPrefillTileRows;
static_assert(kTileRows == RowOwners::kBlock);
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kBlockShared = 232448;  // bytes

// Named barriers: whose turn it is.
constexpr int kTurnBarrier = 1;

// Of y; of each owner's part of it.
struct OutputMaps {
  CUtensorMap of[RowOwners::kMost];
};

struct PrefillTask {
  static constexpr bool ragged = false;  // tensor_core_rows_out.cuh
  const std::byte* weights;
  int rows, outputs, padded;
  int row_tiles, column_tiles, cluster, band;
  int leaves, first_block, last_block;
  int leaf_begin[numerics::kSegments + 1];
  bool gated;     // outputs are runs of gate and up in turn (gated_linear.h); y is what comes of the pairs
  int y_columns;  // of y: outputs, or pairs
  const Bf16* bias;
  Bf16* y;
  float* y_fp32;
  int64_t y_stride;
  int owner_shift;  // fp32 values: tiles of rows go to 1 << owner_shift owners by turns (RowOwners); with boxes
  bool boxes;       // y may be written by the copy engine
  bool wide_y;      // rows of y begin at multiples of 16 bytes
  bool adds;  // y is a residual stream that the outputs are added to (RowLinear::adds): of a tree of eight leaves, with boxes

  void gate(int64_t width) {
    gated = width > 0;
    y_columns = gated ? static_cast<int>(width) : outputs;
  }
  // Which of the output maps is a tile's, and its first row there. A cluster's last tile may begin behind all rows, where an
  // owner without rows, who has no map, would be next: it goes behind the first owner's, and nothing of it is written.
  __device__ int owner(int row) const { return row < rows ? row / kTileRows & ((1 << owner_shift) - 1) : 0; }
  __device__ int owned_row(int row) const { return row < rows ? (row / kTileRows >> owner_shift) * kTileRows : row; }
  __device__ int leaf_end(int leaf) const { return leaf_begin[leaf + 1]; }
};

// kLeaves_: of a tree.
template <PrefillMerge kMerge, int kColumns_, int kLeaves_>
struct Tile {
  static constexpr int kColumns = kColumns_, kLeaves = kLeaves_;
  static constexpr bool kTurns = kMerge == PrefillMerge::kTurns, kTree = kMerge == PrefillMerge::kTree;
  static constexpr bool kFold = kMerge == PrefillMerge::kFold, kChain = kMerge == PrefillMerge::kChain;
  static constexpr bool kTwo = kTree || kFold;  // sets of accumulators, of a tree three
  static constexpr bool kGates = prefill_gates(kMerge, kColumns);
  static constexpr int kSlabs = kTurns ? 2 : 1;                                     // a warpgroup has so many times 64 rows
  static constexpr int kSlabValues = kColumns / 2, kValues = kSlabValues * kSlabs;  // accumulators of a thread
  // Of a tree the sum of four waits in shared memory, where registers do not hold it.
  static constexpr int kSums = kTree && kLeaves == 8 ? kValues : 0;
  // May add to a residual stream: its rows come where the sums were.
  static constexpr bool kAdds = kSums > 0;

  static constexpr int kRowBytes = kTileRows * kLine, kStageBytes = kRowBytes + kColumns * kLine;
  // A warp's own piece of shared memory: sums (thread by thread), then the outputs on their way. Boxes are narrow where that
  // makes room for a fifth stage.
  static constexpr bool kNarrow = kColumns == 192 || kColumns % 64 != 0;
  static constexpr int kBoxLine = kNarrow ? kLine / 2 : kLine, kBoxBytes = 16 * kBoxLine;
  static constexpr int kWarpBytes = kSums ? kSums * 32 * 4 : kNarrow ? (kColumns == 160 ? 5 : 3) * kBoxBytes : 2 * kBoxBytes;
  static constexpr int kBoxes = kWarpBytes / kBoxBytes;
  static constexpr int kOwnBytes = kConsumers * 4 * kWarpBytes, kBarrierBytes = 256;
  static constexpr int kStages = (kBlockShared - 1024 - kBarrierBytes - kOwnBytes) / kStageBytes;
  static constexpr int kShared = 1024 + kStages * kStageBytes + kOwnBytes + kBarrierBytes;
  static_assert(kStages >= 4 && kStages * 16 + kConsumers * 4 * 8 <= kBarrierBytes);
};

// Where things lie in shared memory.
template <class Tile>
struct Ring {
  uint32_t base;
  __device__ explicit Ring(const void* shared) : base((ptx::shared_address(shared) + 1023) & ~1023u) {}
  __device__ uint32_t rows(int stage) const { return base + stage * Tile::kStageBytes; }
  __device__ uint32_t weights(int stage) const { return rows(stage) + Tile::kRowBytes; }
  __device__ uint32_t own(int warp) const { return base + Tile::kStages * Tile::kStageBytes + warp * Tile::kWarpBytes; }
  __device__ uint32_t full(int stage) const { return base + Tile::kStages * Tile::kStageBytes + Tile::kOwnBytes + stage * 16; }
  __device__ uint32_t empty(int stage) const { return full(stage) + 8; }
  // A warp's rows of the residual stream are there.
  __device__ uint32_t residual(int warp) const { return full(Tile::kStages) + warp * 8; }
};

// The tiles of this block, one after the other. Those of one matrix are walked in bands of rows that stay in
// the second-level cache, weights passing by.
struct TileWalk {
  const PrefillTask& task;
  int columns;
  int unit, units, row_units, rank;

  __device__ TileWalk(const PrefillTask& t, int tile_columns) : task(t), columns(tile_columns) {
    unit = blockIdx.x / task.cluster;
    row_units = (task.row_tiles + task.cluster - 1) / task.cluster;
    units = row_units * task.column_tiles;
    rank = task.cluster > 1 ? ptx::cluster_rank() : 0;
  }
  __device__ bool done() const { return unit >= units; }
  __device__ void next() { unit += gridDim.x / task.cluster; }

  // Rows from `row` on, those before row_end count; outputs from `column` on.
  struct Work {
    int row, row_end, column;
  };
  __device__ Work work() const {
    const int band = task.band / task.cluster, of_band = band * task.column_tiles, first = unit / of_band * band;
    const int in_band = min(band, row_units - first), i = unit % of_band;
    return {((first + i % in_band) * task.cluster + rank) * kTileRows, task.rows, i / in_band * columns};
  }
};

}  // namespace invar::cuda::tc::prefill
