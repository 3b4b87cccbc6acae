// One block: `k_groups` rings of stages, each filled by its own producer warp and emptied by `row_groups` warpgroups. A stage
// is 64 inputs: the weights of the block's outputs (bulk copies, ready swizzled) and of all rows of x (a tensor map). The
// slices of k are spread over the k groups and the blocks of the cluster; values of leaves meet in shared memory: every
// warpgroup sends its leaves' values to the block that merges that part of the outputs.
//
// Weights do not depend on earlier kernels: the rings are filled with them before the wait for those.
#pragma once

#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_decode_plan.h"
#include "kernels/linear/cuda/tensor_core_groups.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_order.h"

namespace invar::cuda::tc::decode {

constexpr int kLine = 128;  // bytes
constexpr int kBarrierBytes = 1024;
constexpr int kLeafBlocks = numerics::kColumnLeafTc / static_cast<int>(kBlockInputs);

struct DecodeTask {
  const std::byte* weights;  // one matrix; else of each group
  Groups groups;
  int rows, outputs, padded, blocks;  // blocks of 64 inputs
  int leaves;
  int leaf_begin[numerics::kSegments + 1];  // row-parallel only
  int group_outputs, row_groups, k_groups, cluster, sharing;
  int tiles, stages, slots, share;
  int values_bytes;  // of the place where leaves meet; behind it the groups' first tiles
  // column
  const Bf16* bias;
  Bf16* y;
  float* y_fp32;
  int64_t y_stride;
  // row
  bool subtrees;  // a slice merges its segments itself; they and the slices are powers of two
  TreeDelivery tree;
  float* partials;
  int64_t node_stride;
};

// Where this block's parts lie in its shared memory, and which work is its own.
template <int kTokens, bool kRow, bool kGrouped>
struct Block {
  const DecodeTask& task;
  uint32_t base;
  int k_rank, x_rank;  // place among the blocks of a cluster: behind each other in k, side by side in the outputs

  __device__ Block(const DecodeTask& t, const void* shared) : task(t), base((ptx::shared_address(shared) + 1023) & ~1023u) {
    const int rank = cluster_blocks() > 1 ? ptx::cluster_rank() : 0;
    k_rank = rank % task.cluster;
    x_rank = rank / task.cluster;
  }
  __device__ int cluster_blocks() const { return task.cluster * task.sharing; }
  __device__ int k_peer(int rank) const { return x_rank * task.cluster + rank; }
  __device__ int x_peer(int rank) const { return rank * task.cluster + k_rank; }

  __device__ int tile_outputs() const { return task.group_outputs * task.row_groups; }
  __device__ int stage_bytes() const { return (tile_outputs() + kTokens) * kLine; }
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
    return min(leaf * kLeafBlocks, task.blocks);
  }
  // Blocks side by side go through their tiles together; the last of them may have none.
  __device__ int first_tile() const { return blockIdx.x / cluster_blocks() * task.sharing + x_rank; }
  __device__ int tile_step() const { return gridDim.x / cluster_blocks() * task.sharing; }
  __device__ bool is_round(int tile, int tiles) const { return tile - x_rank < tiles; }
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
    if constexpr (!kGrouped) return {task.weights, tile * tile_outputs(), 0, tile < task.tiles ? task.rows : 0};
    const int group = group_of_tile(group_tiles(), task.groups.count, tile);
    const int i = tile - first_tile_of_group(group_tiles(), group), chunk = i / task.tiles;
    const int first = static_cast<int>(task.groups.offsets[group]) + chunk * kTokens;
    const int left = static_cast<int>(task.groups.offsets[group + 1]) - first;
    return {task.groups.weights[group], i % task.tiles * tile_outputs(), first, min(left, kTokens)};
  }
};

// One warp fills the ring of one k group.
template <int kTokens, bool kRow, bool kGrouped>
__device__ void produce(const Block<kTokens, kRow, kGrouped>& block, const CUtensorMap* x_map, int group) {
  const DecodeTask& task = block.task;
  const int slice = block.k_rank * task.k_groups + group;
  const int begin = block.leaf_block(block.first_leaf(slice)), end = block.leaf_block(block.first_leaf(slice + 1));
  const int tile_outputs = block.tile_outputs(), weight_bytes = tile_outputs * kLine;
  const uint64_t policy = ptx::evict_first_policy();
  const int tiles = block.tiles();
  struct Place {
    int tile, k, stage;
    typename Block<kTokens, kRow, kGrouped>::Work work;
  };
  const auto advance = [&](Place* p) {
    if (++p->stage == task.stages) p->stage = 0;
    if (++p->k < end) return;
    p->k = begin;
    p->tile += block.tile_step();
    if (block.is_round(p->tile, tiles)) p->work = block.work(p->tile);
  };
  const auto load_weights = [&](const Place& p) {
    const int output = p.work.output, bytes = max(0, min(tile_outputs, task.padded - output)) * kLine;
    ptx::barrier_expect(block.full(group, p.stage), bytes + kTokens * kLine);
    if (bytes > 0)
      ptx::copy_bulk(block.stage(group, p.stage), p.work.weights + (int64_t{p.k} * task.padded + output) * kLine, bytes,
                     block.full(group, p.stage), policy);
  };
  const int x_rows = kTokens / task.sharing, x_first = block.x_rank * x_rows;
  uint16_t x_peers = 0;
  for (int i = 0; i < task.sharing; ++i) x_peers |= static_cast<uint16_t>(1 << block.x_peer(i));
  const auto load_x = [&](const Place& p) {
    const uint32_t to = block.stage(group, p.stage) + weight_bytes + x_first * kLine, full = block.full(group, p.stage);
    const int row = p.work.row + x_first, column = p.k * static_cast<int>(kBlockInputs);
    if (task.sharing == 1) {
      ptx::copy_box(to, x_map, row, column, full);
    } else {
      ptx::copy_box_multicast(to, x_map, row, column, full, x_peers);
    }
  };
  ptx::prefetch_tensor_map(x_map);
  Place p{block.first_tile(), begin, 0, {}};
  if (block.is_round(p.tile, tiles)) p.work = block.work(p.tile);
  const Place start = p;
  int filled = 0;
  for (; filled < task.stages && block.is_round(p.tile, tiles); ++filled, advance(&p)) load_weights(p);
  if (block.cluster_blocks() > 1) ptx::cluster_wait_one_thread();  // the others' barriers are ready for x
  ptx::wait_for_earlier_kernels();
  p = start;
  for (int i = 0; i < filled; ++i, advance(&p)) load_x(p);
  for (uint32_t parity = 0; block.is_round(p.tile, tiles);) {
    ptx::barrier_wait(block.empty(group, p.stage), parity);
    load_weights(p);
    load_x(p);
    advance(&p);
    if (p.stage == 0) parity ^= 1;
  }
}

// Writes one value of a plain output, or the one node of a single segment.
template <bool kRow>
__device__ void write_value(const DecodeTask& task, int output, int64_t row, float value) {
  if constexpr (kRow) {
    task.partials[row * task.outputs + output] = value;
  } else {
    const int64_t at = row * task.y_stride + output;
    if (task.bias) value = numerics::add(value, numerics::widen(task.bias[output]));
    if (task.y) {
      task.y[at] = numerics::bf(value);
    } else {
      task.y_fp32[at] = value;
    }
  }
}

// The four values that wgmma leaves in a thread for eight tokens are a piece of sixteen bytes; pieces are numbered through a
// tile: [row group][warp][token tile][lane]. Value i of a piece is output + i / 2 * 8, token + i mod 2.
template <int kTokens>
struct Piece {
  static constexpr int kTiles = kTokens / 8;
  static __device__ int number(int row_group_warp, int tile) { return (row_group_warp * kTiles + tile) * 32 + threadIdx.x % 32; }
  static __device__ int output(int piece, int group_outputs, int i) {
    const int warps = group_outputs / 16, row_group_warp = piece / (32 * kTiles);
    return row_group_warp / warps * group_outputs + row_group_warp % warps * 16 + piece % 32 / 4 + (i >> 1) * 8;
  }
  static __device__ int token(int piece, int i) { return piece / 32 % kTiles * 8 + piece % 4 * 2 + (i & 1); }
};

// One warp's part of one leaf's values goes to the blocks that merge it: over the cluster as copies that complete on the
// merging block's barrier, inside one block as plain stores.
template <int kTokens, bool kRow, bool kGrouped>
__device__ void send_values(const Block<kTokens, kRow, kGrouped>& block, const float (&values)[kTokens / 2], int slot,
                            int row_group_warp) {
  const int share = block.task.share;
#pragma unroll
  for (int i = 0; i < Piece<kTokens>::kTiles; ++i) {
    const int piece = Piece<kTokens>::number(row_group_warp, i);
    const float4 v{values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
    if (block.task.cluster == 1) {
      ptx::store_shared_float4(block.values() + (slot * share + piece) * 16, v);
    } else {
      const int to = piece / share;
      const uint32_t place = block.values() + (slot * share + piece - to * share) * 16;
      ptx::send_float4(ptx::peer_address(place, block.k_peer(to)), v, ptx::peer_address(block.merged(), block.k_peer(to)));
    }
  }
}

// The share of a tile that this block merges, by all its consumers.
template <int kTokens, bool kRow, bool kGrouped>
__device__ void merge_share(const Block<kTokens, kRow, kGrouped>& block,
                            const typename Block<kTokens, kRow, kGrouped>::Work& work, int thread, int threads) {
  const DecodeTask& task = block.task;
  const int pieces = block.tile_outputs() * kTokens / 4, begin = block.k_rank * task.share,
            count = min(task.share, pieces - begin);
  for (int value = thread; value < count * 4; value += threads) {
    const int piece = begin + value / 4;
    const int output = work.output + Piece<kTokens>::output(piece, task.group_outputs, value % 4);
    const int token = Piece<kTokens>::token(piece, value % 4);
    if (output >= task.outputs || token >= work.rows) continue;
    const int64_t row = work.row + token;
    const uint32_t from = block.values() + value * 4, step = task.share * 16;
    const auto load = [&](int slot) { return ptx::load_shared_float(from + slot * step); };
    if (kRow && task.subtrees) {
      float v = numerics::add(load(0), load(1));
      if (task.slots >= 4) v = numerics::add(v, numerics::add(load(2), load(3)));
      if (task.slots == 8) v = numerics::add(v, numerics::add(numerics::add(load(4), load(5)), numerics::add(load(6), load(7))));
      write_value<kRow>(task, output, row, v);
    } else if constexpr (kRow) {
      float segment[numerics::kSegments];
      int slot = 0;
#pragma unroll
      for (int i = 0; i < numerics::kSegments; ++i) {
        segment[i] = 0;
        if (task.tree.held >> i & 1) segment[i] = load(slot++);
      }
      merge_segments(task.tree, segment,
                     [&](int place, float v) { task.partials[place * task.node_stride + row * task.outputs + output] = v; });
    } else {
      float v = load(0);
#pragma unroll 8
      for (int slot = 1; slot < task.slots; ++slot) v = numerics::add(v, load(slot));
      write_value<kRow>(task, output, row, v);
    }
  }
}

template <int kValues>
__device__ void copy(const float (&from)[kValues], float (&to)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) to[i] = from[i];
}
template <int kValues>
__device__ void add(const float (&left)[kValues], const float (&right)[kValues], float (&sum)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) sum[i] = numerics::add(left[i], right[i]);
}

// One warpgroup multiplies the outputs of its row group with its slice of k.
template <int kTokens, bool kRow, bool kGrouped>
__device__ void consume(const Block<kTokens, kRow, kGrouped>& block, int warpgroup) {
  constexpr int kValues = kTokens / 2, kTiles = Piece<kTokens>::kTiles;
  const DecodeTask& task = block.task;
  const int group = warpgroup / task.row_groups, row_group = warpgroup % task.row_groups;
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int slice = block.k_rank * task.k_groups + group;
  const int first_leaf = block.first_leaf(slice), last_leaf = block.first_leaf(slice + 1);
  const int group_warps = task.group_outputs / 16;  // whose results count
  const int weight_bytes = block.tile_outputs() * kLine;
  const int consumers = task.row_groups * task.k_groups * 128;
  const bool direct = task.slots == 0;
  // The first slice of a fold keeps its leaves together; a segment, and every leaf behind the first slice, goes alone.
  const bool folds = !kRow && slice == 0;
  const int slot_of_leaf_0 = kRow ? 0 : 1 - block.first_leaf(1);

  int stage = 0;
  uint32_t parity = 0;
  const bool subtrees = kRow && task.subtrees;
  constexpr bool kHasFour = kRow && kTokens <= kMostTokensOfEightSegments;  // registers for four segments' sum
  if (block.cluster_blocks() > 1) ptx::cluster_wait();                      // the others' barriers are ready
  // The stage is read to its end; it is free when it is so in every block that x goes to.
  const auto release = [&](int which) {
    if (lane >= task.sharing) return;
    if (lane == block.x_rank) {
      ptx::barrier_arrive(block.empty(group, which));
    } else {
      ptx::barrier_arrive_peer(ptx::peer_address(block.empty(group, which), block.x_peer(lane)));
    }
  };
  const int tiles = block.tiles();
  for (int tile = block.first_tile(); block.is_round(tile, tiles); tile += block.tile_step()) {
    const auto work = block.work(tile);
    if (task.cluster > 1 && threadIdx.x == 0) {
      const int pieces = block.tile_outputs() * kTokens / 4 - block.k_rank * task.share;
      ptx::barrier_expect(block.merged(), task.slots * min(task.share, pieces) * 16);
    }
    float total[kValues], pair[kRow ? kValues : 1], four[kHasFour ? kValues : 1];
    for (int leaf = first_leaf; leaf < last_leaf; ++leaf) {
      float acc[kValues];
      int previous = -1;
      const int begin = block.leaf_block(leaf), end = block.leaf_block(leaf + 1);
#pragma unroll 1
      for (int k = begin; k < end; ++k) {
        ptx::barrier_wait(block.full(group, stage), parity);
        const uint32_t weights = block.stage(group, stage) + row_group * (task.group_outputs * kLine);
        const uint64_t a = ptx::matrix_descriptor(weights), b = ptx::matrix_descriptor(block.stage(group, stage) + weight_bytes);
        ptx::warpgroup_fence();
#pragma unroll
        for (int step = 0; step < 4; ++step)
          ptx::Wgmma<kTokens>::multiply(acc, a + step * 2, b + step * 2, step > 0 || k > begin);
        ptx::warpgroup_commit();
        ptx::warpgroup_wait<1>();
        if (previous >= 0) release(previous);
        previous = stage;
        if (++stage == task.stages) {
          stage = 0;
          parity ^= 1;
        }
      }
      ptx::warpgroup_wait<0>();
      ptx::pin(acc);
      release(previous);
      if constexpr (kRow) {
        const int i = leaf - first_leaf, last = last_leaf - first_leaf - 1;
        if (!subtrees || last == 0) {
          copy(acc, total);
        } else if (i == last) {
          add(total, acc, total);
          if (last >= 3) add(pair, total, total);
          if constexpr (kHasFour) {
            if (last == 7) add(four, total, total);
          }
        } else if (i % 2 == 0) {
          copy(acc, total);
        } else if (i % 4 == 1) {
          add(total, acc, pair);
        } else if constexpr (kHasFour) {
          add(total, acc, four);
          add(pair, four, four);
        }
        if (subtrees && i < last) continue;
      } else {
        if (leaf > first_leaf && (direct || folds)) {
          add(total, acc, total);
        } else {
          copy(acc, total);
        }
        if (folds && leaf + 1 < last_leaf) continue;
      }
      if (direct) continue;
      if (warp >= group_warps) continue;
      const int slot = subtrees ? slice : folds ? 0 : slot_of_leaf_0 + leaf;
      send_values(block, total, slot, row_group * group_warps + warp);
    }
    if (direct) {
      if (warp >= group_warps) continue;
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        const int piece = Piece<kTokens>::number(row_group * group_warps + warp, i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int output = work.output + Piece<kTokens>::output(piece, task.group_outputs, j);
          const int token = Piece<kTokens>::token(piece, j);
          if (output < task.outputs && token < work.rows) write_value<kRow>(task, output, work.row + token, total[4 * i + j]);
        }
      }
    } else {
      if (task.cluster == 1) {
        ptx::named_barrier_sync(1, consumers);
      } else {
        ptx::barrier_wait_cluster(block.merged(), 0);
      }
      merge_share(block, work, threadIdx.x, consumers);
      // The next tile's values may not come before these have been read.
      if (block.is_round(tile + block.tile_step(), tiles)) ptx::named_barrier_sync(1, consumers);
    }
  }
}

template <int kTokens, bool kRow, bool kGrouped>
__global__ void __launch_bounds__(most_decode_threads(kTokens), 1)
    decode_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ DecodeTask task) {
  extern __shared__ std::byte shared[];
  const Block<kTokens, kRow, kGrouped> block(task, shared);
  if (threadIdx.x == 0) {
    ptx::barrier_init(block.merged(), 1);
    for (int group = 0; group < task.k_groups; ++group)
      for (int stage = 0; stage < task.stages; ++stage) {
        ptx::barrier_init(block.full(group, stage), 1);
        ptx::barrier_init(block.empty(group, stage), task.row_groups * 4 * task.sharing);
      }
    ptx::fence_barrier_init();
  }
  if constexpr (kGrouped) {
    ptx::wait_for_earlier_kernels();  // the offsets are another kernel's
    count_group_tiles(task.groups, kTokens, task.tiles, block.group_tiles());
  }
  __syncthreads();
  ptx::let_next_kernel_start();
  if (block.cluster_blocks() > 1) ptx::cluster_arrive_relaxed();
  const int warpgroups = task.row_groups * task.k_groups;
  const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128,
                                    0);  // the same in all lanes, and the compiler knows
  if (warpgroup < warpgroups) {
    consume(block, warpgroup);
  } else {
    const int group = (threadIdx.x - warpgroups * 128) / 32;
    if (ptx::elect_one()) {
      produce(block, &x_map, group);
    } else if (block.cluster_blocks() > 1) {
      ptx::cluster_wait_one_thread();
    }
    __syncwarp();
  }
  // Who leaves early would take away barriers that another block still arrives at.
  if (task.sharing > 1) {
    __syncwarp();
    ptx::cluster_arrive_relaxed();
    ptx::cluster_wait();
  }
}

template <bool kRow, bool kGrouped>
auto kernel_for(int tokens) {
  switch (tokens) {
    case 8:
      return decode_kernel<8, kRow, kGrouped>;
    case 16:
      return decode_kernel<16, kRow, kGrouped>;
    case 32:
      return decode_kernel<32, kRow, kGrouped>;
    default:
      return decode_kernel<64, kRow, kGrouped>;
  }
}

inline DecodeTask task_of(const LinearShape& shape, const DecodePlan& plan) {
  DecodeTask task{};
  task.rows = shape.rows;
  task.outputs = shape.outputs;
  task.padded = static_cast<int>(padded_outputs(shape.outputs));
  task.blocks = shape.leaf_begin.back();
  task.leaves = shape.leaves();
  if (shape.by_segments) std::copy(shape.leaf_begin.begin(), shape.leaf_begin.end(), task.leaf_begin);
  task.group_outputs = plan.choice.group_outputs;
  task.row_groups = plan.choice.row_groups;
  task.k_groups = plan.choice.k_groups;
  task.cluster = plan.choice.cluster;
  task.sharing = plan.choice.sharing;
  task.subtrees = plan.subtrees;
  task.tiles = plan.tiles;
  task.stages = plan.stages;
  task.slots = plan.slots;
  task.share = plan.share;
  task.values_bytes = (plan.slots * plan.share * 16 + 1023) / 1024 * 1024;
  return task;
}

template <bool kRow, bool kGrouped>
void run(const Device& device, const Bf16* x, int64_t x_stride, const DecodePlan& plan, const DecodeTask& task) {
  const CUtensorMap x_map =
      tensor_map(device, x, task.rows, task.blocks * kBlockInputs, x_stride, plan.tokens / plan.choice.sharing);
  launch(device,
         {.grid = static_cast<unsigned>(plan.grid),
          .block = static_cast<unsigned>(plan.threads),
          .shared = static_cast<size_t>(plan.shared) + group_tiles_bytes(task.groups.count),
          .cluster = static_cast<unsigned>(plan.choice.cluster * plan.choice.sharing),
          .dependent = true},
         kernel_for<kRow, kGrouped>(plan.tokens), x_map, task);
}

}  // namespace invar::cuda::tc::decode
