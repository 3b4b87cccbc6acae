// One block: `k_groups` rings of stages, each filled by one or two threads and emptied by `row_groups` warpgroups. A stage
// is 64 inputs, of thin matrices 128 or 256, behind one barrier: the weights of the block's outputs (a bulk copy for each 64
// inputs, ready swizzled), then all rows of x (one box of a tensor map), both in slabs of 64 inputs. A column has one leaf, one
// chain. The segments of a row-parallel linear are spread, in slices, over the k groups and the blocks of the cluster, and their
// values meet in shared memory: every warpgroup sends its leaves' values to the block that merges that part of the outputs.
//
// Weights do not depend on earlier kernels: the rings are filled with them, and the second cache is asked for some more, before
// the wait for those.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_decode_plan.h"
#include "kernels/linear/cuda/tensor_core_decode_values.cuh"

namespace invar::cuda::tc::decode {

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
  const bool direct = !kRow || task.slots == 0;

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
        if (!direct && counts) send_values(block, total, subtrees ? slice : leaf, output_warp);
      } else {
        copy(acc, total);
      }
    }
    const auto work = block.work(tile);
    if (direct) {
      if (counts) write_values<kTokens, kRow, kGrouped, kSends>(task, work, output_warp, total, turn);
    } else if constexpr (kRow) {
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
