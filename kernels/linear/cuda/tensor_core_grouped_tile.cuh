// What the blocks of the grouped schedule for many rows share: the task, a tile's place in shared memory, which tiles are whose.
#pragma once

#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_groups.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_prefill_plan.h"
#include "kernels/linear/cuda/tensor_core_rows_out.cuh"

namespace invar::cuda::tc::grouped {

constexpr int kTileRows = 128;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kLeafBlocks = numerics::kColumnLeafTc / static_cast<int>(kBlockInputs);
constexpr int kBlockShared = 232448;  // bytes
constexpr int kPassBarrier = 1;       // named; a warpgroup's own

struct GroupedTask {
  Groups groups;
  int rows, outputs, padded;
  int column_tiles;
  int leaves, first_block, last_block;
  int leaf_begin[numerics::kSegments + 1];  // by segments only
  bool by_segments;
  const Bf16* x;
  int64_t x_stride;
  const int32_t* index;  // or null: row i of the groups is row index[i] of x
  bool gated;            // outputs are runs of gate and up in turn (gated_linear.h); y is what comes of the pairs
  int y_columns;         // of y: outputs, or pairs
  Bf16* y;
  float* y_fp32;
  int64_t y_stride;
  bool boxes;   // y may be written by the copy engine
  bool wide_y;  // rows of y begin at multiples of 16 bytes
  float minus_zero;

  __device__ int leaf_end(int leaf) const {
    if (by_segments) return leaf_begin[leaf + 1];
    return min((leaf + 1) * kLeafBlocks, last_block);
  }
};

template <PrefillMerge kMerge_, int kColumns_>
struct Tile {
  static constexpr PrefillMerge kMerge = kMerge_;
  static constexpr int kColumns = kColumns_;
  static constexpr bool kTree = kMerge == PrefillMerge::kTree;
  static constexpr bool kTwo = kTree || kMerge == PrefillMerge::kFold;  // sets of accumulators
  static constexpr int kValues = kColumns / 2;                          // accumulators of a thread
  // Rows come 16 bytes at a time, from all threads of the producers' warpgroup; else as boxes of a tensor map.
  static constexpr bool kGather = !kTree;
  static constexpr int kProducerRegisters = kGather ? 56 : 40, kConsumerRegisters = kGather ? 224 : 232;
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
  static constexpr int kShared = 1024 + kStages * kStageBytes + kOwnBytes + kBarrierBytes;  // and the groups' tiles
  static_assert(kStages >= 4 && kStages * 16 <= kBarrierBytes);
};

// Where things lie in shared memory.
template <class T>
struct Ring {
  uint32_t base;
  __device__ explicit Ring(const void* shared) : base((ptx::shared_address(shared) + 1023) & ~1023u) {}
  __device__ uint32_t rows(int stage) const { return base + stage * T::kStageBytes; }
  __device__ uint32_t weights(int stage) const { return rows(stage) + T::kRowBytes; }
  __device__ uint32_t own(int warp) const { return base + T::kStages * T::kStageBytes + warp * T::kWarpBytes; }
  __device__ uint32_t full(int stage) const { return base + T::kStages * T::kStageBytes + T::kOwnBytes + stage * 16; }
  __device__ uint32_t empty(int stage) const { return full(stage) + 8; }
  __device__ uint32_t group_tiles() const { return full(0) + T::kBarrierBytes; }
};

// The tiles of this block, one after the other: rows first, so that neighbouring blocks share weights, then outputs.
struct TileWalk {
  const GroupedTask& task;
  uint32_t group_tiles;
  int columns, unit, units;

  __device__ TileWalk(const GroupedTask& t, uint32_t tiles, int tile_columns)
      : task(t), group_tiles(tiles), columns(tile_columns), unit(blockIdx.x) {
    units = first_tile_of_group(group_tiles, task.groups.count);
  }
  __device__ bool done() const { return unit >= units; }
  __device__ void next() { unit += gridDim.x; }

  // Rows from `row` on, those before row_end count; outputs from `column` on of `weights`.
  struct Work {
    const std::byte* weights;
    int row, row_end, column;
  };
  __device__ Work work() const {
    const int group = group_of_tile(group_tiles, task.groups.count, unit);
    const int begin = group_begin(task.groups, group), end = group_begin(task.groups, group + 1);
    const int row_tiles = (end - begin + kTileRows - 1) / kTileRows, i = unit - first_tile_of_group(group_tiles, group);
    return {task.groups.weights[group], begin + i % row_tiles * kTileRows, end, i / row_tiles * columns};
  }
};

}  // namespace invar::cuda::tc::grouped
