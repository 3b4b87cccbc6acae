// What the blocks of the grouped schedule for many rows share: the task, a tile's place in shared memory, which tiles are whose.
#pragma once

#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_grouped.h"
#include "kernels/linear/cuda/tensor_core_groups.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_prefill_plan.h"
#include "kernels/linear/cuda/tensor_core_rows_out.cuh"

namespace invar::cuda::tc::grouped {

constexpr int kTileRows = 128;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kBlockShared = 232448;  // bytes
constexpr int kPassBarrier = 1;       // named; a consumer's own
constexpr int kGatherBarrier = 3;     // the producers'
constexpr int64_t kMostRowTiles = 65535;

struct GroupedTask {
  static constexpr bool ragged = true;  // tensor_core_rows_out.cuh
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
  bool boxes;       // y may be written by the copy engine
  bool wide_y;      // rows of y begin at multiples of 16 bytes
  uint32_t* taken;  // device memory: tiles that blocks took beyond their first one; 0 between launches

  __device__ int leaf_end(int leaf) const { return by_segments ? leaf_begin[leaf + 1] : last_block; }
};

// kLeaves_: of a tree.
template <PrefillMerge kMerge_, int kColumns_, int kLeaves_ = 0>
struct Tile {
  static constexpr PrefillMerge kMerge = kMerge_;
  static constexpr int kColumns = kColumns_, kLeaves = kLeaves_;
  static constexpr bool kTree = kMerge == PrefillMerge::kTree;
  static constexpr bool kRounds = kMerge == PrefillMerge::kChain;  // bf16 outputs of eight blocks of k and more
  static constexpr int kValues = kColumns / 2;                     // accumulators of a thread
  // Rows come 16 bytes at a time, from all threads of the producers' warpgroup; else as boxes of a tensor map.
  static constexpr bool kGather = !kTree;
  // Of 504 that a block begins with (three times 168): who asks for more waits for ever.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
  // Of a tree the sum of four waits in shared memory, where registers do not hold it.
  static constexpr int kSums = kTree && kLeaves == 8 ? kValues : 0;

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
  static_assert(kStages >= 4 && kStages * 32 + 16 <= kBarrierBytes);
};

// Where groups begin, in shared memory: what a tile is must be known without a wait for memory, a tile being some microseconds.
struct GroupTable {
  uint32_t base;
  int count;

  static constexpr size_t bytes(int groups) { return (static_cast<size_t>(groups) + 1) * (sizeof(int) + sizeof(uint16_t)); }
  // First row of a group; of `count`: behind the last one.
  __device__ int begin(int group) const { return ptx::load_shared_int(base + group * 4); }
  // Tiles of rows of the groups before it: at most kMostRowTiles.
  __device__ int row_tiles(int group) const { return ptx::load_shared_uint16(base + (count + 1) * 4 + group * 2); }

  // By one warp of the block; a barrier must follow.
  __device__ void fill(const Groups& groups) const {
    if (threadIdx.x >= 32) return;
    const int lane = threadIdx.x;
    int before = 0;
    for (int first = 0; first <= count; first += 32) {
      const int group = first + lane;
      int at = 0, sum = 0;
      if (group <= count) at = group_begin(groups, group);
      if (group < count) sum = (group_begin(groups, group + 1) - at + kTileRows - 1) / kTileRows;
      const int own = sum;
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(0xffffffff, sum, distance);
        if (lane >= distance) sum += other;
      }
      if (group <= count) {
        ptx::store_shared_int(base + group * 4, at);
        ptx::store_shared_uint16(base + (count + 1) * 4 + group * 2, static_cast<uint16_t>(before + sum - own));
      }
      before += __shfl_sync(0xffffffff, sum, 31);
    }
  }
};

// Rows from `row` on, those before row_end count; outputs from `column` on. row < 0: no tile.
struct Work {
  int row, row_end, column;
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
  __device__ GroupTable groups(int count) const { return {full(0) + T::kBarrierBytes, count}; }
  __device__ uint32_t place_of_unit() const { return full(0) + T::kBarrierBytes - 16; }
  // Which tile begins with a stage: written before the stage is announced, read before it is released.
  __device__ uint32_t place_of_work(int stage) const { return full(0) + T::kBarrierBytes / 2 + stage * 16; }
  __device__ void set_work(int stage, const Work& work) const {
    ptx::store_shared_int(place_of_work(stage), work.row);
    ptx::store_shared_int(place_of_work(stage) + 4, work.row_end);
    ptx::store_shared_int(place_of_work(stage) + 8, work.column);
  }
  __device__ Work work(int stage) const {
    const uint4 words = ptx::load_shared_words(place_of_work(stage));
    return {static_cast<int>(words.x), static_cast<int>(words.y), static_cast<int>(words.z)};
  }
};

// The tiles: rows first, so that blocks that are at it at the same time share weights, then outputs. A block takes the next one
// when it comes to it: tiles take unequal times, and who is late by a tile finds its weights gone from the second-level cache.
struct TileWalk {
  const GroupedTask& task;
  const GroupTable table;
  int columns, units, group = 0;

  __device__ TileWalk(const GroupedTask& t, const GroupTable& groups, int tile_columns)
      : task(t), table(groups), columns(tile_columns) {
    units = table.row_tiles(table.count) * task.column_tiles;
  }

  // By one thread. Each block's first tile is that of its number. Who has a tile takes the next one, and there are as many takers
  // as tiles.
  __device__ int take() const { return static_cast<int>(atomicAdd(task.taken, 1u)); }
  __device__ int unit_of(int taken) const {
    if (taken == units - 1) *task.taken = 0;
    return static_cast<int>(gridDim.x) + taken;
  }

  // Units ascend.
  __device__ Work work(int unit, const std::byte** weights) {
    int first = table.row_tiles(group), last = table.row_tiles(group + 1);
    while (last * task.column_tiles <= unit) {
      ++group;
      first = last;
      last = table.row_tiles(group + 1);
    }
    const int row_tiles = last - first, i = unit - first * task.column_tiles, column = i / row_tiles;
    *weights =
        reinterpret_cast<const std::byte*>(__ldg(reinterpret_cast<const unsigned long long*>(task.groups.weights) + group));
    return {table.begin(group) + (i - column * row_tiles) * kTileRows, table.begin(group + 1), column * columns};
  }
};

}  // namespace invar::cuda::tc::grouped
