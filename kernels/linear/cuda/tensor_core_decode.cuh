// One block: `k_groups` rings of stages, each filled by one or two threads and emptied by `row_groups` warpgroups. A stage
// is 64 inputs, of thin matrices 128 or 256, behind one barrier: the weights of the block's outputs (a bulk copy for each 64
// inputs, ready swizzled), then all rows of x (one box of a tensor map), both in slabs of 64 inputs. The
// slices of k are spread over the k groups and the blocks of the cluster; values of leaves meet in shared memory: every
// warpgroup sends its leaves' values to the block that merges that part of the outputs.
//
// Weights do not depend on earlier kernels: the rings are filled with them, and the second cache is asked for some more, before
// the wait for those.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_decode_plan.h"
#include "kernels/linear/cuda/tensor_core_decode_targets.cuh"
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
    return min(leaf * (kLeafBlocks / kDepth), task.blocks);
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

// Rows of x one by one, from where an index has them: worth it for few.
constexpr bool takes_index(int tokens, bool row, bool grouped) { return grouped && !row && tokens == 8; }

// One thread fills the ring of one k group, or every `task.producers`-th stage of it, from the one numbered `first` on. What lies
// between its stages is what the chains of a short call wait for: addresses go on by additions, and two share the work.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void produce(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block, const CUtensorMap* x_map, int group,
                        int first) {
  const DecodeTask& task = block.task;
  const int slice = block.k_rank * task.k_groups + group, turns = task.producers;
  const int begin = block.leaf_block(block.first_leaf(slice)), end = block.leaf_block(block.first_leaf(slice + 1));
  const uint32_t stage_bytes = block.stage_bytes(), weight_bytes = task.tile_outputs * kLine;
  const uint32_t last_full = block.full(group, task.stages - 1);
  const int64_t slab_bytes = int64_t{task.padded} * kLine, block_bytes = slab_bytes * kDepth;
  const uint64_t policy = ptx::evict_first_policy();
  const int tiles = block.tiles();
  struct Place {
    int tile, k, row, rows;
    uint32_t full, stage, bytes, parity;
    const std::byte* weights;
    int from[takes_index(kTokens, kRow, kGrouped) ? kTokens : 1];  // with an index: the rows of x
  };
  const auto open = [&](Place* p) {
    for (; p->k >= end; p->k -= end - begin) p->tile += block.tile_step();
    if (p->tile >= tiles) return;
    const auto work = block.work(p->tile);
    p->row = work.row;
    p->rows = work.rows;
    p->bytes = min(task.tile_outputs, task.padded - work.output) * kLine;
    p->weights = work.weights + p->k * block_bytes + work.output * kLine;
    // Once a tile: for each stage anew they would be what the stages wait for.
    if constexpr (takes_index(kTokens, kRow, kGrouped)) {
      if (task.index)
#pragma unroll
        for (int i = 0; i < kTokens; ++i) p->from[i] = i < work.rows ? __ldcg(task.index + work.row + i) : 0;
    }
  };
  const auto advance = [&](Place* p) {
    p->full += 16 * turns;
    p->stage += stage_bytes * turns;
    if (p->full > last_full) {
      p->full -= 16 * task.stages;
      p->stage -= stage_bytes * task.stages;
      p->parity ^= 1;
    }
    p->weights += block_bytes * turns;
    if ((p->k += turns) >= end) open(p);
  };
  const bool indexed = takes_index(kTokens, kRow, kGrouped) && task.index;
  const auto load_weights = [&](const Place& p) {
    ptx::barrier_expect(p.full, (p.bytes + (indexed ? p.rows : kTokens) * kLine) * kDepth);
#pragma unroll
    for (int i = 0; i < kDepth; ++i)
      ptx::copy_bulk(p.stage + i * weight_bytes, p.weights + i * slab_bytes, p.bytes, p.full, policy);
  };
  const auto ask_ahead = [&](const Place& p) {
#pragma unroll
    for (int i = 0; i < kDepth; ++i) ptx::prefetch_bulk(p.weights + i * slab_bytes, p.bytes, policy);
  };
  const auto load_x = [&](const Place& p) {
    if constexpr (kDepth > 1) {
      ptx::copy_slabs(p.stage + weight_bytes * kDepth, x_map, p.k * kDepth, p.row, p.full);
      return;
    }
    const int column = p.k * static_cast<int>(kBlockInputs);
    if constexpr (takes_index(kTokens, kRow, kGrouped)) {
      if (indexed) {
#pragma unroll
        for (int i = 0; i < kTokens; ++i)
          if (i < p.rows) ptx::copy_box(p.stage + weight_bytes + i * kLine, x_map, p.from[i], column, p.full);
        return;
      }
    }
    ptx::copy_box(p.stage + weight_bytes, x_map, p.row, column, p.full);
  };
  ptx::prefetch_tensor_map(x_map);
  Place p{.tile = block.first_tile(),
          .k = begin + first,
          .full = block.full(group, first),
          .stage = block.stage(group, first),
          .parity = 1};
  const int all = p.tile < tiles ? (tiles - p.tile + block.tile_step() - 1) / block.tile_step() * (end - begin) : 0;
  if (end > begin) open(&p);
  const Place start = p;
  const int filled = min(task.stages, all);
  int i = first;
#pragma unroll 1
  for (; i < filled; i += turns, advance(&p)) load_weights(p);
  const bool lets = !kGrouped && group == 0 && task.next_at >= 0;
  // What reads the targets counts on all earlier kernels' ends.
  const bool lets_early = lets ? all - filled <= task.next_at : kSends && group == 0;
  if (lets_early && !kSends) ptx::let_next_kernel_start();
    // The memory goes on working while full rings wait for x.
#pragma unroll 1
  for (; i < min(filled + task.ahead, all); i += turns, advance(&p)) ask_ahead(p);
  ptx::wait_for_earlier_kernels();
  if (lets_early && kSends) ptx::let_next_kernel_start();
  p = start;
#pragma unroll 1
  for (i = first; i < filled; i += turns, advance(&p)) load_x(p);
#pragma unroll 1
  for (; i < all; i += turns, advance(&p)) {
    ptx::barrier_wait(p.full + 8, p.parity);
    load_weights(p);
    load_x(p);
    if (lets && all - 1 - i == task.next_at) ptx::let_next_kernel_start();
  }
}

// Writes the values of a thread's two outputs `output` and `output` + 8 for one row.
template <bool kRow, bool kGrouped, bool kSends>
__device__ void write_pair(const DecodeTask& task, int output, bool first, bool second, int64_t row, float v, float w,
                           int64_t area) {
  if constexpr (kRow) {
    const int64_t at = row * task.outputs + output;
    if (kSends) {
      if (first) send_value(task.targets, area + at, v);
      if (second) send_value(task.targets, area + at + 8, w);
      return;
    }
    if (kGrouped && task.y) {
      if (first) task.y[at] = numerics::bf(v);
      if (second) task.y[at + 8] = numerics::bf(w);
      return;
    }
    if (first) task.partials[at] = v;
    if (second) task.partials[at + 8] = w;
  } else {
    if (task.bias && first) v = numerics::add(v, numerics::widen(task.bias[output]));
    if (task.bias && second) w = numerics::add(w, numerics::widen(task.bias[output + 8]));
    if (task.gated_width) {
      const int j = output / 16 * 8 + output % 8;
      if (j < task.gated_width) task.y[row * task.y_stride + j] = numerics::silu_mul(numerics::bf(v), numerics::bf(w));
      return;
    }
    const int64_t at = row * task.y_stride + output;
    if (task.y) {
      if (first) task.y[at] = numerics::bf(v);
      if (second) task.y[at + 8] = numerics::bf(w);
    } else {
      if (first) task.y_fp32[at] = v;
      if (second) task.y_fp32[at + 8] = w;
    }
  }
}

// The four values that wgmma leaves in a thread for eight tokens are a piece of sixteen bytes; pieces are numbered through a
// tile: [warp, those of all row groups][token tile][lane]. Value i of a piece is output + i / 2 * 8, token + i mod 2.
template <int kTokens>
struct Piece {
  static constexpr int kTiles = kTokens / 8;
  static __device__ int number(int warp, int tile) { return (warp * kTiles + tile) * 32 + static_cast<int>(threadIdx.x % 32); }
  static __device__ int output(int piece, int i) { return piece / (32 * kTiles) * 16 + piece % 32 / 4 + (i >> 1) * 8; }
  static __device__ int token(int piece, int i) { return piece / 32 % kTiles * 8 + piece % 4 * 2 + (i & 1); }
};

// Keeps what depends on `value` from being computed before this point: many addresses, alive in registers all along k.
__device__ inline int unforeseen(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// One warp's part of a tile that needs no merging. One address for all rows: registers are few here.
template <int kTokens, bool kRow, bool kGrouped, bool kSends, class Work>
__device__ void write_values(const DecodeTask& task, const Work& work, int output_warp, float (&values)[kTokens / 2],
                             uint32_t turn) {
  if constexpr (kSends) {
    const int64_t area = area_in_turn(task.targets, turn);
    const int lane = unforeseen(static_cast<int>(threadIdx.x % 32)), token = neighbours_token(lane);
    const int in_tile = output_warp * 16 + neighbours_output(lane);
    const bool valid = in_tile < min(task.tile_outputs, task.outputs - work.output);
    int64_t at = area + (work.row + token) * int64_t{task.outputs} + work.output + in_tile;
#pragma unroll
    for (int i = 0; i < kTokens / 8; ++i, at += 8 * int64_t{task.outputs}) {
      float v[4] = {values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
      gather_neighbours(v);
      if (valid && i * 8 + token < work.rows) send_four(task.targets, at, v);
    }
    return;
  }
  const int first = unforeseen(Piece<kTokens>::number(output_warp, 0)), token = Piece<kTokens>::token(first, 0);
  const int in_tile = Piece<kTokens>::output(first, 0), output = work.output + in_tile;
  const int last = min(task.tile_outputs, task.outputs - work.output);
  const bool valid[2] = {in_tile < last, in_tile + 8 < last};
  const auto for_rows = [&](int64_t stride, int column, const auto& put) {
    int64_t at = (work.row + token) * stride + column;
#pragma unroll
    for (int i = 0; i < kTokens / 8; ++i, at += 8 * stride)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        if (i * 8 + token + j < work.rows) put(at + j * stride, values[4 * i + j], values[4 * i + j + 2]);
  };
  if constexpr (kRow) {
    for_rows(task.outputs, output, [&](int64_t at, float v, float w) {
      if (kGrouped && task.y) {
        if (valid[0]) task.y[at] = numerics::bf(v);
        if (valid[1]) task.y[at + 8] = numerics::bf(w);
        return;
      }
      if (valid[0]) task.partials[at] = v;
      if (valid[1]) task.partials[at + 8] = w;
    });
  } else {
    if (task.bias) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float bias = valid[half] ? numerics::widen(task.bias[output + 8 * half]) : 0.0f;
#pragma unroll
        for (int i = 0; i < kTokens / 4; ++i) {
          float& v = values[i / 2 * 4 + 2 * half + i % 2];
          v = numerics::add(v, bias);
        }
      }
    }
    if (task.gated_width) {
      const int column = output / 16 * 8 + output % 8;
      if (column < task.gated_width)
        for_rows(task.y_stride, column,
                 [&](int64_t at, float v, float w) { task.y[at] = numerics::silu_mul(numerics::bf(v), numerics::bf(w)); });
    } else if (task.y) {
      for_rows(task.y_stride, output, [&](int64_t at, float v, float w) {
        if (valid[0]) task.y[at] = numerics::bf(v);
        if (valid[1]) task.y[at + 8] = numerics::bf(w);
      });
    } else {
      for_rows(task.y_stride, output, [&](int64_t at, float v, float w) {
        if (valid[0]) task.y_fp32[at] = v;
        if (valid[1]) task.y_fp32[at + 8] = w;
      });
    }
  }
}

// One warp's part of one leaf's values goes to the blocks that merge it: over the cluster as copies that complete on the
// merging block's barrier, inside one block as plain stores.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void send_values(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block, const float (&values)[kTokens / 2],
                            int slot, int output_warp) {
  const int share = block.task.share;
  const int first = unforeseen(Piece<kTokens>::number(output_warp, 0));
#pragma unroll
  for (int i = 0; i < Piece<kTokens>::kTiles; ++i) {
    const int piece = first + i * 32;
    const float4 v{values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
    if (block.task.cluster == 1) {
      ptx::store_shared_float4(block.values() + (slot * share + piece) * 16, v);
    } else {
      const int to = piece / share;
      const uint32_t place = block.values() + (slot * share + piece - to * share) * 16;
      ptx::send_float4(ptx::peer_address(place, to), v, ptx::peer_address(block.merged(), to));
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

// The share of a tile that this block merges, by whole warps that send it: one node, whose slots are a power of two.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void merge_and_send(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block,
                               const typename Block<kTokens, kRow, kGrouped, kDepth, kSends>::Work& work, int thread, int threads,
                               int64_t area) {
  constexpr int kTiles = kTokens / 8;
  const DecodeTask& task = block.task;
  const int lane = thread % 32, token = neighbours_token(lane), in_warp = neighbours_output(lane);
  const int last = min(task.tile_outputs, task.outputs - work.output);
  // In runs of 32 pieces: a warp's outputs and eight tokens.
  const int begin = block.k_rank * task.share / 32, count = min(task.share, block.pieces() - begin * 32) / 32;
  const auto merged = [&](int run, float(&v)[4]) {
    const uint32_t from = block.values() + ((run - begin) * 32 + lane) * 16, step = task.share * 16;
    const auto load = [&](int slot, float(&w)[4]) {
      const float4 piece = ptx::load_shared_float4(from + slot * step);
      w[0] = piece.x, w[1] = piece.y, w[2] = piece.z, w[3] = piece.w;
    };
    float a[4], b[4], c[4];
    load(0, v);
    if (task.slots >= 2) load(1, a), add(v, a, v);
    if (task.slots >= 4) load(2, a), load(3, b), add(a, b, a), add(v, a, v);
    if (task.slots == 8) load(4, a), load(5, b), add(a, b, a), load(6, b), load(7, c), add(b, c, b), add(a, b, a), add(v, a, v);
    gather_neighbours(v);
  };
  const auto send = [&](const float(&v)[4], int in_tile, int in_rows) {
    if (in_tile < last && in_rows < work.rows)
      send_four(task.targets, area + (work.row + in_rows) * int64_t{task.outputs} + work.output + in_tile, v);
  };
  const int warp = thread / 32, warps = threads / 32;
  if (begin % (2 * kTiles) == 0 && count % (2 * kTiles) == 0) {
    for (int i = warp; i < count / 2; i += warps) {
      const int run = begin + i / kTiles * (2 * kTiles) + i % kTiles, in_tile = run / kTiles * 16 + in_warp + token % 2 * 16;
      float first[4], second[4];
      merged(run, first);
      merged(run + kTiles, second);
      pair_neighbours(first, second);
      send(first, in_tile, run % kTiles * 8 + token / 2 * 2);
      send(second, in_tile, run % kTiles * 8 + token / 2 * 2 + 1);
    }
  } else {
    for (int run = begin + warp; run < begin + count; run += warps) {
      float v[4];
      merged(run, v);
      send(v, run / kTiles * 16 + in_warp, run % kTiles * 8 + token);
    }
  }
}

// The share of a tile that this block merges, by all its consumers.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void merge_share(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block,
                            const typename Block<kTokens, kRow, kGrouped, kDepth, kSends>::Work& work, int thread, int threads,
                            uint32_t turn) {
  const DecodeTask& task = block.task;
  const int64_t area = kSends ? area_in_turn(task.targets, turn) : 0;
  if constexpr (kSends)
    if (task.subtrees && task.share % 32 == 0) return merge_and_send(block, work, thread, threads, area);
  const int pieces = block.pieces(), begin = block.k_rank * task.share, count = min(task.share, pieces - begin);
  const int last = min(task.tile_outputs, task.outputs - work.output);
  // Half a piece: two outputs of one row.
  for (int half = thread; half < count * 2; half += threads) {
    const int piece = begin + half / 2, j = half % 2;
    const int in_tile = Piece<kTokens>::output(piece, j), token = Piece<kTokens>::token(piece, j);
    if (in_tile >= last || token >= work.rows) continue;
    const int64_t row = work.row + token;
    const int output = work.output + in_tile;
    const uint32_t from = block.values() + (half / 2 * 4 + j) * 4, step = task.share * 16;
    const auto merged = [&](uint32_t at) {
      const auto load = [&](int slot) { return ptx::load_shared_float(at + slot * step); };
      float v = load(0);
      if constexpr (kRow) {
        if (task.slots >= 2) v = numerics::add(v, load(1));
        if (task.slots >= 4) v = numerics::add(v, numerics::add(load(2), load(3)));
        if (task.slots == 8)
          v = numerics::add(v, numerics::add(numerics::add(load(4), load(5)), numerics::add(load(6), load(7))));
      } else {
#pragma unroll 8
        for (int slot = 1; slot < task.slots; ++slot) v = numerics::add(v, load(slot));
      }
      return v;
    };
    if (!kRow || task.subtrees) {
      write_pair<kRow, kGrouped, kSends>(task, output, true, in_tile + 8 < last, row, merged(from), merged(from + 8), area);
    } else if constexpr (kRow) {
      for (int i = 0; i < 2 && in_tile + 8 * i < last; ++i) {
        float segment[numerics::kSegments];
        int slot = 0;
#pragma unroll
        for (int s = 0; s < numerics::kSegments; ++s) {
          segment[s] = 0;
          if (task.tree.held >> s & 1) segment[s] = ptx::load_shared_float(from + 8 * i + slot++ * step);
        }
        merge_segments(task.tree, segment, [&](int place, float v) {
          const int64_t at = place * task.node_stride + row * task.outputs + output + 8 * i;
          if (kSends)
            send_value(task.targets, area + at, v);
          else
            task.partials[at] = v;
        });
      }
    }
  }
}

// One warpgroup multiplies the outputs of its row group with its slice of k.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void consume(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block, int warpgroup) {
  constexpr int kValues = kTokens / 2;
  const DecodeTask& task = block.task;
  const int group = warpgroup / task.row_groups, row_group = warpgroup % task.row_groups;
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int slice = block.k_rank * task.k_groups + group;
  const int first_leaf = block.first_leaf(slice), last_leaf = block.first_leaf(slice + 1);
  const int output_warp = row_group * 4 + warp;
  const bool counts = output_warp * 16 < task.tile_outputs;  // else it has multiplied rubbish
  const int weight_bytes = task.tile_outputs * kLine, weight_slab = task.tile_outputs * (kLine / 16);
  const int consumers = task.row_groups * task.k_groups * 128;
  const bool direct = task.slots == 0;
  // The first slice of a fold keeps its leaves together; a segment, and every leaf behind the first slice, goes alone.
  const bool folds = !kRow && slice == 0;
  const int slot_of_leaf_0 = kRow ? 0 : 1 - block.first_leaf(1);

  int stage = 0;
  uint32_t parity = 0;
  const bool subtrees = kRow && task.subtrees;
  constexpr bool kHasFour = kRow && kTokens <= kMostTokensOfEightSegments;  // registers for four segments' sum
  if (task.cluster > 1) ptx::cluster_wait();                                // the others' barriers are ready
  uint32_t turn = 0;
  if constexpr (kSends) turn = turn_of(task.targets);
  const auto release = [&](int which) {
    if (lane == 0) ptx::barrier_arrive(block.empty(group, which));
  };
  const int tiles = block.tiles();
  for (int tile = block.first_tile(); tile < tiles; tile += block.tile_step()) {
    if (task.cluster > 1 && threadIdx.x == 0) {
      const int pieces = block.pieces() - block.k_rank * task.share;
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
        const uint32_t weights = block.stage(group, stage) + row_group * (64 * kLine);
        const uint64_t a = ptx::matrix_descriptor(weights),
                       b = ptx::matrix_descriptor(block.stage(group, stage) + weight_bytes * kDepth);
        ptx::warpgroup_fence();
#pragma unroll
        for (int slab = 0; slab < kDepth; ++slab)
#pragma unroll
          for (int step = 0; step < 4; ++step)
            ptx::Wgmma<kTokens>::multiply(acc, a + slab * weight_slab + step * 2, b + slab * (kTokens * kLine / 16) + step * 2,
                                          slab > 0 || step > 0 || k > begin);
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
      if (direct || !counts) continue;
      const int slot = subtrees ? slice : folds ? 0 : slot_of_leaf_0 + leaf;
      send_values(block, total, slot, output_warp);
    }
    const auto work = block.work(tile);
    if (direct) {
      if (counts) write_values<kTokens, kRow, kGrouped, kSends>(task, work, output_warp, total, turn);
    } else {
      if (task.cluster == 1) {
        ptx::named_barrier_sync(1, consumers);
      } else {
        ptx::barrier_wait_cluster(block.merged(), 0);
      }
      merge_share(block, work, threadIdx.x, consumers, turn);
      // The next tile's values may not come before these have been read.
      if (tile + block.tile_step() < tiles) ptx::named_barrier_sync(1, consumers);
    }
  }
}

template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__global__ void __launch_bounds__(most_decode_threads(kTokens, kRow), 1)
    decode_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ DecodeTask task) {
  extern __shared__ std::byte shared[];
  const Block<kTokens, kRow, kGrouped, kDepth, kSends> block(task, shared);
  if (threadIdx.x == 0) {
    ptx::barrier_init(block.merged(), 1);
    for (int group = 0; group < task.k_groups; ++group)
#pragma unroll 1
      for (int stage = 0; stage < task.stages; ++stage) {
        ptx::barrier_init(block.full(group, stage), 1);
        ptx::barrier_init(block.empty(group, stage), task.row_groups * 4);
      }
    ptx::fence_barrier_init();
  }
  if constexpr (kGrouped) {
    if (!task.settled) ptx::wait_for_earlier_kernels();  // the offsets are another kernel's
    count_group_tiles(task.groups, kTokens, task.tiles, block.group_tiles());
  }
  __syncthreads();
  if (kGrouped || (task.next_at < 0 && !kSends)) ptx::let_next_kernel_start();
  if (task.cluster > 1) ptx::cluster_arrive_relaxed();
  const int warpgroups = task.row_groups * task.k_groups;
  const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128,
                                    0);  // the same in all lanes, and the compiler knows
  if (warpgroup < warpgroups) {
    consume(block, warpgroup);
  } else {
    const int producer = __shfl_sync(0xffffffff, threadIdx.x / 32, 0) - warpgroups * 4;
    const int group = producer / task.producers;
    if (ptx::elect_one()) produce(block, &x_map, group, producer - group * task.producers);
    __syncwarp();
    if (task.cluster > 1) ptx::cluster_wait();
  }
}

template <bool kRow, int kDepth, bool kSends>
auto deep_kernel_for(int tokens) {
  constexpr int kMost = most_decode_tokens(kDepth);
  if (tokens == 8) return decode_kernel<8, kRow, false, kDepth, kSends>;
  return tokens == 16 ? decode_kernel<16, kRow, false, kDepth, kSends> : decode_kernel<kMost, kRow, false, kDepth, kSends>;
}
template <bool kRow, bool kGrouped, bool kSends>
auto kernel_for(int tokens, int depth) {
  if constexpr (!kGrouped) {
    if (depth == 2) return deep_kernel_for<kRow, 2, kSends>(tokens);
    if (depth == 4) return deep_kernel_for<kRow, 4, kSends>(tokens);
  }
  switch (tokens) {
    case 8:
      return decode_kernel<8, kRow, kGrouped, 1, kSends>;
    case 16:
      return decode_kernel<16, kRow, kGrouped, 1, kSends>;
    case 32:
      return decode_kernel<32, kRow, kGrouped, 1, kSends>;
    default:
      return decode_kernel<64, kRow, kGrouped, 1, kSends>;
  }
}
template <bool kRow, bool kGrouped>
auto kernel_for(const DecodeTask& task, int tokens, int depth) {
  if constexpr (kRow && !kGrouped)
    if (task.targets.count) return kernel_for<kRow, kGrouped, true>(tokens, depth);
  return kernel_for<kRow, kGrouped, false>(tokens, depth);
}

inline DecodeTask task_of(const LinearShape& shape, const DecodePlan& plan) {
  DecodeTask task{};
  task.rows = shape.rows;
  task.outputs = shape.outputs;
  task.padded = static_cast<int>(padded_outputs(shape.outputs));
  task.blocks = shape.leaf_begin.back() / plan.choice.depth;
  task.leaves = shape.leaves();
  if (shape.by_segments)
    for (int i = 0; i <= shape.leaves(); ++i) task.leaf_begin[i] = shape.leaf_begin[i] / plan.choice.depth;
  task.tile_outputs = plan.choice.tile_outputs;
  task.row_groups = plan.row_groups;
  task.k_groups = plan.choice.k_groups;
  task.cluster = plan.choice.cluster;
  task.subtrees = plan.subtrees;
  task.tiles = plan.tiles;
  while (1 << task.row_shift < plan.choice.row_tiles) ++task.row_shift;
  task.stages = plan.stages;
  task.producers = plan.choice.producers;
  task.slots = plan.slots;
  task.share = plan.share;
  task.ahead = plan.ahead;
  task.next_at = plan.next_at;
  task.values_bytes = (plan.slots * plan.share * 16 + 1023) / 1024 * 1024;
  return task;
}

// x as [slabs of 64 inputs][rows][64]: a box is all rows of a tile and `depth` slabs, one behind the other.
inline CUtensorMap x_slabs(const Device& device, const Bf16* x, int64_t rows, int64_t slabs, int64_t x_stride, int box_rows,
                           int depth) {
  CUtensorMap map;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(kBlockInputs), static_cast<cuuint64_t>(rows),
                               static_cast<cuuint64_t>(slabs)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(x_stride) * sizeof(Bf16), kLine};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(kBlockInputs), static_cast<cuuint32_t>(box_rows),
                             static_cast<cuuint32_t>(depth)};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result = device.cuda().encode_tensor_map(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<Bf16*>(x), sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw DeviceFailure("cuTensorMapEncodeTiled refuses the rows of a linear");
  return map;
}

template <bool kRow, bool kGrouped>
void run(const Device& device, const Bf16* x, int64_t x_stride, const DecodePlan& plan, const DecodeTask& task) {
  const int depth = plan.choice.depth, slabs = task.blocks * depth;
  // Of an index nobody knows how far it goes.
  const CUtensorMap x_map = task.index
                                ? tensor_map(device, x, std::numeric_limits<int32_t>::max(), slabs * kBlockInputs, x_stride, 1)
                            : depth > 1 ? x_slabs(device, x, task.rows, slabs, x_stride, plan.tokens, depth)
                                        : tensor_map(device, x, task.rows, slabs * kBlockInputs, x_stride, plan.tokens);
  launch(device,
         {.grid = static_cast<unsigned>(plan.grid),
          .block = static_cast<unsigned>(plan.threads),
          .shared = static_cast<size_t>(plan.shared) + group_tiles_bytes(task.groups.count),
          .cluster = static_cast<unsigned>(plan.choice.cluster),
          .dependent = true},
         kernel_for<kRow, kGrouped>(task, plan.tokens, depth), x_map, task);
}

}  // namespace invar::cuda::tc::decode
