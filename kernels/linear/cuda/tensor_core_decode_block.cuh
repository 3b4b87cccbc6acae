// What a block of the decode schedule has to do, and where its parts lie in its shared memory.
#pragma once

#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_groups.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_order.h"
#include "kernels/linear/linear.h"

namespace invar::cuda::tc::decode {

constexpr int kLine = 128;  // bytes
constexpr int kBarrierBytes = 1024;

struct DecodeTask {
  const std::byte* weights;  // one matrix; else of each group
  Groups groups;
  int rows, outputs, padded;
  int blocks;  // of as many inputs as a stage has
  int leaves;
  int leaf_begin[numerics::kSegments + 1];  // row-parallel only; in such blocks
  int tile_outputs, row_groups, k_groups, cluster;
  int tiles, stages, slots, share;  // tiles of groups: of one group's outputs
  int row_shift;                    // of the same outputs there are 1 << row_shift tiles, kTokens rows each
  int producers;                    // warps that fill a k group's ring in turns
  int ahead;                        // stages behind the ring that a k group asks the second cache for
  int next_at;                      // loads that a k group has left when the next kernel's blocks may start; -1: they may at once
  int values_bytes;                 // of the place where leaves meet; behind it the groups' first tiles
  // column
  const Bf16* bias;
  int gated_width;  // not 0: outputs are runs of eight of gate and up, y their product
  Bf16* y;
  float* y_fp32;
  int64_t y_stride;
  // row
  bool subtrees;  // a slice merges its segments itself; they and the slices are powers of two
  TreeDelivery tree;
  float* partials;  // or y: rounded, of the root alone
  int64_t node_stride;
  RowTargets targets;    // instead of partials; not of groups
  const int32_t* index;  // of groups: row i is row index[i] of x; or null. Eight rows a tile only
  bool settled;          // of groups: the offsets are no work of the kernel right before this one
};

// Where this block's parts lie in its shared memory, and which work is its own. `kDepth`: slabs of 64 inputs of a stage.
// `kSends`: values leave for task.targets; kernels of their own, since what sends takes as much code and registers as all the
// rest.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
struct Block {
  const DecodeTask& task;
  uint32_t base;
  int k_rank;  // place among the blocks of a cluster, behind each other in k

  __device__ Block(const DecodeTask& t, const void* shared) : task(t), base((ptx::shared_address(shared) + 1023) & ~1023u) {
    k_rank = t.cluster > 1 ? static_cast<int>(ptx::cluster_rank()) : 0;
  }

  __device__ int stage_bytes() const { return (task.tile_outputs + kTokens) * (kDepth * kLine); }
  // Of a tile's values, sixteen bytes each; a warp that begins within the tile has all its pieces.
  __device__ int pieces() const { return (task.tile_outputs + 15) / 16 * kTokens * 4; }
  __device__ uint32_t merged() const { return base; }  // barrier: the values of this block's share are here
  __device__ uint32_t full(int group, int stage) const { return base + 16 + (group * task.stages + stage) * 16; }
  __device__ uint32_t empty(int group, int stage) const { return full(group, stage) + 8; }
  __device__ uint32_t stage(int group, int stage) const {
    return base + kBarrierBytes + (group * task.stages + stage) * stage_bytes();
  }
  __device__ uint32_t values() const { return base + kBarrierBytes + task.k_groups * task.stages * stage_bytes(); }

  __device__ int slices() const { return task.k_groups * task.cluster; }
  __device__ int first_leaf(int slice) const { return slice * task.leaves / slices(); }
  __device__ int leaf_block(int leaf) const {
    if constexpr (kRow) return task.leaf_begin[leaf];
    return leaf ? task.blocks : 0;
  }
  __device__ int first_tile() const { return blockIdx.x / task.cluster; }
  __device__ int tile_step() const { return gridDim.x / task.cluster; }
  __device__ uint32_t group_tiles() const { return values() + task.values_bytes; }
  __device__ int tiles() const {
    if constexpr (kGrouped) return first_tile_of_group(group_tiles(), task.groups.count);
    return task.tiles;
  }

  // What one tile multiplies: outputs from `output` on of `weights`, rows [row, row + rows).
  struct Work {
    const std::byte* weights;
    int output, row, rows;
  };
  __device__ Work work(int tile) const {
    if constexpr (!kGrouped) {
      const int output = tile >> task.row_shift, row = (tile - (output << task.row_shift)) * kTokens;
      return {task.weights, output * task.tile_outputs, row, min(task.rows - row, kTokens)};
    }
    const int group = group_of_tile(group_tiles(), task.groups.count, tile);
    const int i = tile - first_tile_of_group(group_tiles(), group), chunk = i / task.tiles;
    const int first = group_begin(task.groups, group) + chunk * kTokens, left = group_begin(task.groups, group + 1) - first;
    return {task.groups.weights[group], i % task.tiles * task.tile_outputs, first, min(left, kTokens)};
  }
};

}  // namespace invar::cuda::tc::decode
