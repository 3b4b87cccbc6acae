// A block: one producer thread, two warpgroups of consumers with 64 rows of the tile each. Rows of x are the M side of wgmma,
// weights the N side; a stage of the ring is 64 k of both. In a cluster two blocks with the same outputs fetch half of the
// weights each and give them to both.
//
// A leaf's end costs almost no tensor-core time: the accumulators are two halves of the tile's columns. The last block of 64 k
// of a leaf is multiplied half by half, and while the first half is added to the totals the second one multiplies, then the
// first half of the next leaf while the second one is added.
#pragma once

#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/cuda/tensor_core_groups.cuh"
#include "kernels/linear/cuda/tensor_core_layout.h"
#include "kernels/linear/cuda/tensor_core_prefill_plan.h"

namespace invar::cuda::tc::prefill {

constexpr int kLine = 128;  // bytes
constexpr int kTileRows = kPrefillTileRows;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * 128;
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
constexpr int kLeafBlocks = numerics::kColumnLeafTc / static_cast<int>(kBlockInputs);
constexpr int kBlockShared = 232448;   // bytes
constexpr int kBoxBytes = 16 * kLine;  // 16 rows of 64 bf16 or 32 fp32 outputs on their way out

struct PrefillTask {
  const std::byte* weights;  // one matrix; else of each group
  Groups groups;
  int rows, outputs, padded;
  int row_tiles, column_tiles, cluster;
  int leaves, first_block, last_block;
  int leaf_begin[numerics::kSegments + 1];  // by segments only
  bool by_segments;
  bool short_leaves;  // some leaf that another follows is one block of 64
  const Bf16* bias;
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

template <PrefillMerge kMerge, int kColumns>
struct Tile {
  static constexpr int kValues = kColumns / 2;  // accumulators of a thread
  static constexpr int kHalf = kValues / 2;
  static constexpr int kRowBytes = kTileRows * kLine, kStageBytes = kRowBytes + kColumns * kLine;
  // A warp's own piece of shared memory: the tree's level 2 (thread by thread), and the outputs on their way (16 rows of 128
  // bytes).
  static constexpr int kStagingBytes = 2 * kBoxBytes;
  static constexpr int kWarpBytes = kMerge == PrefillMerge::kTree ? kValues * 32 * 4 : kStagingBytes;
  static constexpr int kOwnBytes = kConsumers * 4 * kWarpBytes, kBarrierBytes = 256;
  static constexpr int kStages = (kBlockShared - 1024 - kBarrierBytes - kOwnBytes) / kStageBytes;
  static constexpr int kShared = 1024 + kStages * kStageBytes + kOwnBytes + kBarrierBytes;
  static_assert(kStages >= 4 && kStages * 16 <= kBarrierBytes && kWarpBytes >= kStagingBytes);
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
      const int band = 16 / task.cluster, of_band = band * task.column_tiles, first = unit / of_band * band;
      const int in_band = min(band, row_units - first), i = unit % of_band;
      return {task.weights, ((first + i % in_band) * task.cluster + rank) * kTileRows, task.rows, i / in_band * columns};
    }
  }
};

template <class Tile, int kColumns, bool kGrouped>
__device__ void produce(const PrefillTask& task, const CUtensorMap* x_map, const Ring<Tile>& ring) {
  TileWalk<kGrouped> walk(task, ring.group_tiles(), kColumns);
  struct Step {
    int unit, block;
    typename TileWalk<kGrouped>::Work work;
  };
  const auto advance = [&](Step* s) {
    if (++s->block < task.last_block) return;
    s->block = task.first_block;
    walk.unit = s->unit;
    walk.next();
    s->unit = walk.unit;
    if (!walk.done()) s->work = walk.work();
  };
  const auto load_weights = [&](const Step& s, int stage) {
    const uint32_t full = ring.full(stage);
    const int outputs = min(kColumns, task.padded - s.work.column);
    ptx::barrier_expect(full, Tile::kRowBytes + outputs * kLine);
    const std::byte* from = s.work.weights + (int64_t{s.block} * task.padded + s.work.column) * kLine;
    if (task.cluster == 1) {
      ptx::copy_bulk(ring.weights(stage), from, outputs * kLine, full);
    } else {
      const int begin = walk.rank * (kColumns / 2), count = min(kColumns / 2, outputs - begin);
      if (count > 0)
        ptx::copy_bulk_multicast(ring.weights(stage) + begin * kLine, from + begin * kLine, count * kLine, full, uint16_t{3});
    }
  };
  const auto load_rows = [&](const Step& s, int stage) {
    ptx::copy_box(ring.rows(stage), x_map, s.work.row, s.block * static_cast<int>(kBlockInputs), ring.full(stage));
  };
  ptx::prefetch_tensor_map(x_map);
  if (walk.done()) return;
  const Step start{walk.unit, task.first_block, walk.work()};
  Step step = start;
  // Weights do not depend on earlier kernels.
  int filled = 0;
  for (; filled < Tile::kStages && step.unit < walk.units; ++filled, advance(&step)) load_weights(step, filled);
  ptx::wait_for_earlier_kernels();
  step = start;
  for (int i = 0; i < filled; ++i, advance(&step)) load_rows(step, i);
  int stage = 0;
  for (uint32_t parity = 0; step.unit < walk.units; advance(&step)) {
    ptx::barrier_wait(ring.empty(stage), parity);
    load_weights(step, stage);
    load_rows(step, stage);
    if (++stage == Tile::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// A thread's part of a tile. A plain copy of an accumulator is written as the addition of an opaque -0, which changes no bit:
// the compiler spills around register copies of accumulators, not around additions.
template <PrefillMerge kMerge, int kColumns>
struct Values {
  using T = Tile<kMerge, kColumns>;
  static constexpr int kTotals = kMerge == PrefillMerge::kChain ? 1 : T::kValues;
  static constexpr int kPairs = kMerge == PrefillMerge::kTree ? T::kValues : 1;
  float acc[T::kValues];
  float total[kTotals];  // the fold so far; in a tree the last even segment
  float pair[kPairs];    // in a tree: the last sum of two segments that waits for
                         // its partner
  float minus_zero;
  uint32_t four;  // shared memory: in a tree of eight the sum of the first four, this thread's value i at four + i / 4 * 512

  template <int kWhich>
  __device__ void leaf_ends(int leaf) {
    constexpr int kBegin = kWhich * T::kHalf, kEnd = kBegin + T::kHalf;
    if constexpr (kMerge == PrefillMerge::kFold) {
      if (leaf == 0) {
#pragma unroll
        for (int i = kBegin; i < kEnd; ++i) total[i] = numerics::add(acc[i], minus_zero);
      } else {
#pragma unroll
        for (int i = kBegin; i < kEnd; ++i) total[i] = numerics::add(total[i], acc[i]);
      }
    }
    if constexpr (kMerge == PrefillMerge::kTree) {
      if (leaf % 2 == 0) {
#pragma unroll
        for (int i = kBegin; i < kEnd; ++i) total[i] = numerics::add(acc[i], minus_zero);
      } else if (leaf % 4 == 1) {
#pragma unroll
        for (int i = kBegin; i < kEnd; ++i) pair[i] = numerics::add(total[i], acc[i]);
      } else {
#pragma unroll
        for (int i = kBegin; i < kEnd; i += 4)
          ptx::store_shared_float4(four + i * 128, {quad(i), quad(i + 1), quad(i + 2), quad(i + 3)});
      }
    }
  }
  // The tile's last leaf: the result is in acc.
  __device__ void tile_ends(int leaves) {
    if constexpr (kMerge == PrefillMerge::kFold) {
      if (leaves == 1) return;
#pragma unroll
      for (int i = 0; i < T::kValues; ++i) acc[i] = numerics::add(total[i], acc[i]);
    }
    if constexpr (kMerge == PrefillMerge::kTree) {
#pragma unroll
      for (int i = 0; i < T::kValues; ++i) acc[i] = quad(i);
      if (leaves == 4) return;
#pragma unroll
      for (int i = 0; i < T::kValues; i += 4) {
        const float4 v = ptx::load_shared_float4(four + i * 128);
        acc[i] = numerics::add(v.x, acc[i]);
        acc[i + 1] = numerics::add(v.y, acc[i + 1]);
        acc[i + 2] = numerics::add(v.z, acc[i + 2]);
        acc[i + 3] = numerics::add(v.w, acc[i + 3]);
      }
    }
  }

 private:
  __device__ float quad(int i) const { return numerics::add(pair[i], numerics::add(total[i], acc[i])); }
};

// The tile's values leave: row `row` of this thread's first value's warp, column `column` of the tile's first output.
template <int kValues>
__device__ void write_fp32(const PrefillTask& task, const float (&acc)[kValues], int row, int row_end, int column) {
  const int lane = threadIdx.x % 32;
  const bool pairs = task.wide_y;
#pragma unroll
  for (int i = 0; i < kValues; i += 2) {
    const int m = row + lane / 4 + (i & 2) * 4, n = column + i / 4 * 8 + lane % 4 * 2;
    if (m >= row_end) continue;
    float* to = task.y_fp32 + m * task.y_stride + n;
    if (pairs && n + 1 < task.outputs) {
      *reinterpret_cast<float2*>(to) = {acc[i], acc[i + 1]};
    } else {
      if (n < task.outputs) to[0] = acc[i];
      if (n + 1 < task.outputs) to[1] = acc[i + 1];
    }
  }
}

// 32 values of a thread as 16 rows of 64 bf16 in shared memory, swizzled.
__device__ inline void store_bf16_box(const float* values, uint32_t to) {
  const int lane = threadIdx.x % 32, line = lane % 16;
#pragma unroll
  for (int part = 0; part < 4; ++part) {  // 16 columns: four matrices of 8 x 8
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = ptx::bf16_pair(values[part * 8 + i * 2], values[part * 8 + i * 2 + 1]);
    const int piece = part * 2 + lane / 16;
    ptx::store_matrices(to + line * kLine + ((piece ^ (line & 7)) << 4), words);
  }
}

// Through the warp's own shared memory, 16 rows of 64 outputs at a time, so that whole lines go to memory.
template <int kValues>
__device__ void write_bf16(const PrefillTask& task, const float (&acc)[kValues], int row, int row_end, int column,
                           uint32_t staging) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int box = 0; box < kValues / 32; ++box) {
    __syncwarp();
    store_bf16_box(&acc[box * 32], staging);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int line = i * 4 + lane / 8, piece = lane % 8, m = row + line, n = column + box * 64 + piece * 8;
      union {
        uint4 words;
        Bf16 values[8];
      };
      words = ptx::load_shared_words(staging + line * kLine + ((piece ^ (line & 7)) << 4));
      if (m >= row_end) continue;
      Bf16* to = task.y + m * task.y_stride + n;
      if (task.wide_y && n + 8 <= task.outputs) {
        *reinterpret_cast<uint4*>(to) = words;
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j)
          if (n + j < task.outputs) to[j] = values[j];
      }
    }
  }
}

// The same by the copy engine, which goes on while the next tile is multiplied; two boxes are under way. Whole boxes, except
// where y ends.
template <bool kFp32, int kValues>
__device__ void send_boxes(const PrefillTask& task, const CUtensorMap* y_map, const float (&acc)[kValues], int row, int column,
                           uint32_t staging) {
  constexpr int kWidth = kFp32 ? 32 : 64, kOfBox = kWidth / 2;  // outputs of a box, values of a thread
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int box = 0; box < kValues / kOfBox; ++box) {
    if (column + box * kWidth >= task.outputs) break;
    const uint32_t to = staging + box % 2 * kBoxBytes;
    if (lane == 0) ptx::wait_stores_read<1>();
    __syncwarp();
    if constexpr (kFp32) {
#pragma unroll
      for (int i = 0; i < kOfBox; i += 2) {
        const int line = lane / 4 + (i & 2) * 4, piece = i / 4 * 2 + lane % 4 / 2;
        ptx::store_shared_float2(to + line * kLine + ((piece ^ (line & 7)) << 4) + lane % 2 * 8,
                                 {acc[box * kOfBox + i], acc[box * kOfBox + i + 1]});
      }
    } else {
      store_bf16_box(&acc[box * kOfBox], to);
    }
    ptx::fence_async_shared();
    __syncwarp();
    if (lane == 0) {
      ptx::store_box(y_map, row, column + box * kWidth, to);
      ptx::commit_stores();
    }
  }
}

template <PrefillMerge kMerge, int kColumns, bool kGrouped>
__device__ void consume(const PrefillTask& task, const CUtensorMap* y_map, const Ring<Tile<kMerge, kColumns>>& ring,
                        int warpgroup) {
  using T = Tile<kMerge, kColumns>;
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  Values<kMerge, kColumns> values;
  values.minus_zero = task.minus_zero;
  values.four = ring.own(warpgroup * 4 + warp) + lane * 16;
  const uint32_t rank = task.cluster > 1 ? ptx::cluster_rank() : 0;
  int stage = 0, held = -1;
  uint32_t parity = 0;
  const auto next = [&] {
    held = stage;
    if (++stage == T::kStages) {
      stage = 0;
      parity ^= 1;
    }
  };
  // The stage held is read to its end: both blocks may fill theirs.
  const auto release = [&] {
    if (thread >= task.cluster) return;
    if (thread == static_cast<int>(rank)) {
      ptx::barrier_arrive(ring.empty(held));
    } else {
      ptx::barrier_arrive_peer(ptx::peer_address(ring.empty(held), thread));
    }
  };
  const auto wait_full = [&] { ptx::barrier_wait(ring.full(stage), parity); };
  const auto multiply = [&](auto half, int accumulate) {
    constexpr int kWhich = decltype(half)::value;  // 0, 1: half of the columns; 2: all
    const uint64_t a = ptx::matrix_descriptor(ring.rows(stage) + warpgroup * 64 * kLine);
    const uint64_t b = ptx::matrix_descriptor(ring.weights(stage) + (kWhich == 1 ? kColumns / 2 * kLine : 0));
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if constexpr (kWhich == 2) {
        ptx::Wgmma<kColumns>::multiply(values.acc, a + step * 2, b + step * 2, accumulate || step);
      } else {
        ptx::Wgmma<kColumns / 2>::multiply(values.acc + kWhich * T::kHalf, a + step * 2, b + step * 2, accumulate || step);
      }
    }
    ptx::warpgroup_commit();
  };
  constexpr std::integral_constant<int, 0> kFirst;
  constexpr std::integral_constant<int, 1> kSecond;
  constexpr std::integral_constant<int, 2> kAll;
  const auto both_halves = [&] {
    wait_full();
    multiply(kFirst, 1);
    multiply(kSecond, 1);
    ptx::warpgroup_wait<2>();
    release();
    next();
  };

#pragma unroll 1
  for (TileWalk<kGrouped> walk(task, ring.group_tiles(), kColumns); !walk.done(); walk.next()) {
    if (lane == 0) ptx::wait_stores_read<0>();  // the last tile's outputs: their place has other uses
    __syncwarp();
    ptx::forget(values.total);
    ptx::forget(values.pair);
    ptx::pin(values.acc);
    int block = task.first_block;
    if constexpr (kMerge == PrefillMerge::kChain) {
      wait_full();
      multiply(kAll, 0);
      next();
#pragma unroll 1
      for (++block; block < task.last_block; ++block) {
        wait_full();
        multiply(kAll, 1);
        ptx::warpgroup_wait<1>();
        release();
        next();
      }
    } else if (kMerge == PrefillMerge::kTree && task.short_leaves) {
      // No time to overlap within a leaf: the other warpgroup multiplies meanwhile.
#pragma unroll 1
      for (int leaf = 0;; ++leaf) {
        const int begin = block, end = task.leaf_end(leaf);
#pragma unroll 1
        for (; block < end; ++block) {
          wait_full();
          multiply(kFirst, block > begin);
          multiply(kSecond, block > begin);
          ptx::warpgroup_wait<0>();
          next();
          if (leaf + 1 < task.leaves || block + 1 < end) release();
        }
        if (leaf + 1 == task.leaves) break;
        ptx::pin(values.acc);
        values.template leaf_ends<0>(leaf);
        values.template leaf_ends<1>(leaf);
      }
    } else {
      wait_full();
      multiply(kFirst, 0);
      multiply(kSecond, 0);
      next();
      ++block;
#pragma unroll 1
      for (int leaf = 0;; ++leaf) {  // its first block is under way
        const bool last_leaf = leaf + 1 == task.leaves;
        const int end = task.leaf_end(leaf) - (last_leaf ? 0 : 1);
#pragma unroll 1
        for (; block < end; ++block) both_halves();
        if (last_leaf) break;
        // The leaf's last block: out of the loop, so that the compiler sees which multiplications are under way below.
        both_halves();
        ++block;
        ptx::warpgroup_wait<1>();
        ptx::pin<0, T::kHalf>(values.acc);
        values.template leaf_ends<0>(leaf);
        wait_full();
        multiply(kFirst, 0);
        ptx::warpgroup_wait<1>();
        ptx::pin<T::kHalf, T::kValues>(values.acc);
        release();
        values.template leaf_ends<1>(leaf);
        multiply(kSecond, 0);
        next();
        ++block;
      }
    }
    ptx::warpgroup_wait<0>();
    ptx::pin(values.acc);
    release();
    values.tile_ends(task.leaves);
    const auto work = walk.work();
    const int row = work.row + warpgroup * 64 + warp * 16, column = work.column;
    if (task.bias) {
#pragma unroll
      for (int i = 0; i < T::kValues; i += 4) {
        const int n = column + i / 4 * 8 + lane % 4 * 2;
        const float b0 = numerics::widen(n < task.outputs ? task.bias[n] : Bf16{0});
        const float b1 = numerics::widen(n + 1 < task.outputs ? task.bias[n + 1] : Bf16{0});
        values.acc[i] = numerics::add(values.acc[i], b0);
        values.acc[i + 1] = numerics::add(values.acc[i + 1], b1);
        values.acc[i + 2] = numerics::add(values.acc[i + 2], b0);
        values.acc[i + 3] = numerics::add(values.acc[i + 3], b1);
      }
    }
    const uint32_t staging = ring.own(warpgroup * 4 + warp);
    if (task.boxes && (!kGrouped || row + 16 <= work.row_end)) {
      if (task.y) {
        send_boxes<false>(task, y_map, values.acc, row, column, staging);
      } else {
        send_boxes<true>(task, y_map, values.acc, row, column, staging);
      }
    } else if (task.y) {
      write_bf16(task, values.acc, row, work.row_end, column, staging);
    } else {
      write_fp32(task, values.acc, row, work.row_end, column);
    }
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

template <PrefillMerge kMerge, int kColumns, bool kGrouped>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap y_map,
                   const __grid_constant__ PrefillTask task) {
  using T = Tile<kMerge, kColumns>;
  extern __shared__ std::byte shared[];
  const Ring<T> ring(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < T::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), 1);
      ptx::barrier_init(ring.empty(stage), kConsumers * task.cluster);
    }
    ptx::fence_barrier_init();
  }
  if constexpr (kGrouped) {
    ptx::wait_for_earlier_kernels();  // the offsets are another kernel's
    count_group_tiles(task.groups, kTileRows, task.column_tiles, ring.group_tiles());
  }
  if (task.cluster > 1) {
    ptx::cluster_sync();
  } else {
    __syncthreads();
  }
  ptx::let_next_kernel_start();
  const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
  if (warpgroup == kConsumers) {
    ptx::fewer_registers<kProducerRegisters>();
    if (threadIdx.x / 32 == kConsumers * 4) {
      if (ptx::elect_one()) produce<T, kColumns, kGrouped>(task, &x_map, ring);
      __syncwarp();
    }
  } else {
    ptx::more_registers<kConsumerRegisters>();
    consume<kMerge, kColumns, kGrouped>(task, &y_map, ring, warpgroup);
  }
  // Who leaves early would take barriers and memory away that the other block still writes to.
  __syncwarp();
  if (task.cluster > 1) ptx::cluster_sync();
}

template <PrefillMerge kMerge, int kColumns, bool kGrouped>
void run(const Device& device, const CUtensorMap& x_map, const CUtensorMap& y_map, const PrefillPlan& plan,
         const PrefillTask& task) {
  launch(device,
         {.grid = static_cast<unsigned>(plan.grid),
          .block = kThreads,
          .shared = Tile<kMerge, kColumns>::kShared + group_tiles_bytes(task.groups.count),
          .cluster = static_cast<unsigned>(plan.cluster),
          .dependent = true},
         prefill_kernel<kMerge, kColumns, kGrouped>, x_map, y_map, task);
}

inline PrefillTask task_of(const LinearShape& shape, const PrefillPlan& plan) {
  PrefillTask task{};
  task.rows = shape.rows;
  task.outputs = shape.outputs;
  task.padded = static_cast<int>(padded_outputs(shape.outputs));
  task.row_tiles = plan.row_tiles;
  task.column_tiles = plan.column_tiles;
  task.cluster = plan.cluster;
  task.leaves = shape.leaves();
  task.first_block = shape.leaf_begin.front();
  task.last_block = shape.leaf_begin.back();
  task.by_segments = shape.by_segments;
  if (shape.by_segments) std::copy(shape.leaf_begin.begin(), shape.leaf_begin.end(), task.leaf_begin);
  for (int i = 0; i + 1 < shape.leaves(); ++i) task.short_leaves |= shape.leaf_begin[i + 1] - shape.leaf_begin[i] < 2;
  task.minus_zero = -0.0f;
  return task;
}

// y in boxes of 16 rows times 128 bytes, swizzled as cuda::tensor_map's.
inline CUtensorMap output_map(const Device& device, const PrefillTask& task) {
  if (task.y) return tensor_map(device, task.y, task.rows, task.outputs, task.y_stride, 16);
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(task.outputs), static_cast<cuuint64_t>(task.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(task.y_stride) * sizeof(float)};
  const cuuint32_t box[2] = {32, 16}, steps[2] = {1, 1};
  const CUresult result = device.cuda().encode_tensor_map(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, task.y_fp32, sizes, strides,
                                                          box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                                          CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw DeviceFailure("cuTensorMapEncodeTiled refuses the outputs of a linear");
  return map;
}

template <bool kGrouped>
void run(const Device& device, const Bf16* x, int64_t x_stride, int64_t inputs, const PrefillPlan& plan, PrefillTask task) {
  task.wide_y = task.y ? reinterpret_cast<uintptr_t>(task.y) % 16 == 0 && task.y_stride % 8 == 0
                       : reinterpret_cast<uintptr_t>(task.y_fp32) % 8 == 0 && task.y_stride % 2 == 0;
  const CUtensorMap x_map = tensor_map(device, x, task.rows, inputs, x_stride, kTileRows);
  task.boxes = task.y ? task.wide_y : reinterpret_cast<uintptr_t>(task.y_fp32) % 16 == 0 && task.y_stride % 4 == 0;
  const CUtensorMap y_map = task.boxes ? output_map(device, task) : x_map;
  if (plan.merge == PrefillMerge::kChain) return run<PrefillMerge::kChain, 256, kGrouped>(device, x_map, y_map, plan, task);
  if (plan.merge == PrefillMerge::kTree) return run<PrefillMerge::kTree, 128, kGrouped>(device, x_map, y_map, plan, task);
  if (plan.columns == 192) return run<PrefillMerge::kFold, 192, kGrouped>(device, x_map, y_map, plan, task);
  if (plan.columns == 64) return run<PrefillMerge::kFold, 64, kGrouped>(device, x_map, y_map, plan, task);
  run<PrefillMerge::kFold, 128, kGrouped>(device, x_map, y_map, plan, task);
}

}  // namespace invar::cuda::tc::prefill
