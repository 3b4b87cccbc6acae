// What the blocks of the prefill schedule share: the task, a tile's place in shared memory, which tiles are whose.
#pragma once

#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_groups.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_prefill_plan.h"

namespace invar::cuda::tc::prefill {

constexpr int kLine = 128;  // bytes
constexpr int kTileRows = kPrefillTileRows;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kLeafBlocks = numerics::kColumnLeafTc / static_cast<int>(kBlockInputs);
constexpr int kBlockShared = 232448;  // bytes

struct PrefillTask {
  const std::byte* weights;  // one matrix; else of each group
  Groups groups;
  int rows, outputs, padded;
  int row_tiles, column_tiles, cluster, band;
  int leaves, first_block, last_block;
  int leaf_begin[numerics::kSegments + 1];  // by segments only
  bool by_segments;
  int lead;
  bool gated;     // outputs are runs of gate and up in turn (gated_linear.h); y is what comes of the pairs
  int y_columns;  // of y: outputs, or pairs
  const Bf16* bias;
  Bf16* y;
  float* y_fp32;
  int64_t y_stride;
  bool boxes;   // y may be written by the copy engine
  bool wide_y;  // rows of y begin at multiples of 16 bytes
  float minus_zero;

  void gate(int64_t width) {
    gated = width > 0;
    y_columns = gated ? static_cast<int>(width) : outputs;
  }
  __device__ int leaf_end(int leaf) const {
    if (by_segments) return leaf_begin[leaf + 1];
    return min((leaf + 1) * kLeafBlocks, last_block);
  }
};

template <PrefillMerge kMerge, int kColumns_>
struct Tile {
  static constexpr int kColumns = kColumns_;
  static constexpr bool kTurns = kMerge == PrefillMerge::kTurns, kTree = kMerge == PrefillMerge::kTree;
  static constexpr bool kTwo = kTree || kMerge == PrefillMerge::kFold;              // sets of accumulators
  static constexpr int kSlabs = kTurns ? 2 : 1;                                     // a warpgroup has so many times 64 rows
  static constexpr int kSlabValues = kColumns / 2, kValues = kSlabValues * kSlabs;  // accumulators of a thread
  // Of a tree the sum of four waits in shared memory, where registers do not hold it.
  static constexpr int kSums = kTree ? kValues : 0;

  static constexpr int kRowBytes = kTileRows * kLine, kStageBytes = kRowBytes + kColumns * kLine;
  // A warp's own piece of shared memory: sums (thread by thread), then the outputs on their way. Boxes are narrow where that
  // makes room for a fifth stage.
  static constexpr bool kNarrow = kColumns == 192;
  static constexpr int kBoxLine = kNarrow ? kLine / 2 : kLine, kBoxBytes = 16 * kBoxLine;
  static constexpr int kWarpBytes = kSums ? kSums * 32 * 4 : kNarrow ? 3 * kBoxBytes : 2 * kBoxBytes;
  static constexpr int kBoxes = kWarpBytes / kBoxBytes;
  static constexpr int kOwnBytes = kConsumers * 4 * kWarpBytes, kBarrierBytes = 256;
  static constexpr int kStages = (kBlockShared - 1024 - kBarrierBytes - kOwnBytes) / kStageBytes;
  static constexpr int kShared = 1024 + kStages * kStageBytes + kOwnBytes + kBarrierBytes;
  static_assert(kStages >= 4 && kStages * 16 <= kBarrierBytes);
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
  __device__ uint32_t group_tiles() const {
    return base + Tile::kStages * Tile::kStageBytes + Tile::kOwnBytes + Tile::kBarrierBytes;
  }
};

// The tiles of this block, one after the other. Those of one matrix are walked in bands of rows that stay in the second-level
// cache, weights passing by.
template <bool kGrouped>
struct TileWalk {
  const PrefillTask& task;
  uint32_t group_tiles;
  int columns;
  int unit, units, row_units, rank;

  __device__ TileWalk(const PrefillTask& t, uint32_t tiles, int tile_columns)
      : task(t), group_tiles(tiles), columns(tile_columns) {
    unit = blockIdx.x / task.cluster;
    row_units = (task.row_tiles + task.cluster - 1) / task.cluster;
    units = kGrouped ? first_tile_of_group(group_tiles, task.groups.count) : row_units * task.column_tiles;
    rank = task.cluster > 1 ? ptx::cluster_rank() : 0;
  }
  __device__ bool done() const { return unit >= units; }
  __device__ void next() { unit += gridDim.x / task.cluster; }

  // Rows from `row` on, those before row_end count; outputs from `column` on of `weights`.
  struct Work {
    const std::byte* weights;
    int row, row_end, column;
  };
  __device__ Work work() const {
    if constexpr (kGrouped) {
      const int group = group_of_tile(group_tiles, task.groups.count, unit);
      const int begin = static_cast<int>(task.groups.offsets[group]), end = static_cast<int>(task.groups.offsets[group + 1]);
      const int row_tiles = (end - begin + kTileRows - 1) / kTileRows, i = unit - first_tile_of_group(group_tiles, group);
      return {task.groups.weights[group], begin + i % row_tiles * kTileRows, end, i / row_tiles * columns};
    } else {
      const int band = task.band / task.cluster, of_band = band * task.column_tiles, first = unit / of_band * band;
      const int in_band = min(band, row_units - first), i = unit % of_band;
      return {task.weights, ((first + i % in_band) * task.cluster + rank) * kTileRows, task.rows, i / in_band * columns};
    }
  }
};

}  // namespace invar::cuda::tc::prefill
