// A block: one producer thread, two warpgroups of consumers. Rows of x are the M side of wgmma, weights the N side; a stage of
// the ring is 64 k of both. In a cluster two blocks with the same outputs fetch half of the weights each and give them to both.
//
// The warpgroups have 64 rows of a tile each. A leaf's end costs little tensor-core time: leaves go in turn to two sets of
// accumulators, of which only the second one has to be waited for, and while one warpgroup adds or writes, the other one
// multiplies. Or, where a tile is short, they have a tile each and take turns.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/cuda/tensor_core_prefill_output.cuh"

namespace invar::cuda::tc::prefill {

constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
// Named barriers: whose turn it is; that the first warpgroup has begun a tile; a warpgroup's own.
constexpr int kTurnBarrier = 1, kBegunBarrier = 3, kPassBarrier = 4;

template <class Tile, bool kGrouped>
__device__ void produce(const PrefillTask& task, const CUtensorMap* x_map, const Ring<Tile>& ring) {
  constexpr int kColumns = Tile::kColumns;
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

// A warpgroup's way through the ring.
template <class T>
struct Reader {
  const Ring<T>& ring;
  const int cluster, rank, thread;
  int stage = 0, held = -1;  // held: read by multiplications that may be under way
  uint32_t parity = 0;

  __device__ Reader(const Ring<T>& r, int blocks)
      : ring(r), cluster(blocks), rank(blocks > 1 ? static_cast<int>(ptx::cluster_rank()) : 0), thread(threadIdx.x % 128) {}
  __device__ void next() {
    if (++stage == T::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  // Stages that the other warpgroup reads.
  __device__ void skip(int count) {
    stage += count;
    parity ^= stage / T::kStages & 1;
    stage %= T::kStages;
  }
  // The stage is read to its end: both blocks may fill theirs.
  __device__ void release(int which) const {
    if (thread >= cluster) return;
    if (thread == rank) {
      ptx::barrier_arrive(ring.empty(which));
    } else {
      ptx::barrier_arrive_peer(ptx::peer_address(ring.empty(which), thread));
    }
  }
  // A stage that this warpgroup has nothing to do with. Its warps wait for each other as multiplications make them: who is a
  // whole turn of the ring late could not tell the parities apart.
  __device__ void pass(int warpgroup) {
    ptx::barrier_wait(ring.full(stage), parity);
    ptx::named_barrier_sync(kPassBarrier + warpgroup, 128);
    release(stage);
    next();
  }
  // One block of 64 k times this warpgroup's rows, which begin at `row` of the tile, into d; leaves it under way.
  __device__ __forceinline__ void multiply(float (&d)[T::kValues], int row, int accumulate) {
    ptx::barrier_wait(ring.full(stage), parity);
    const uint64_t a = ptx::matrix_descriptor(ring.rows(stage) + row * kLine);
    const uint64_t b = ptx::matrix_descriptor(ring.weights(stage));
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int slab = 0; slab < T::kSlabs; ++slab)
        ptx::Wgmma<T::kColumns>::multiply(d + slab * T::kSlabValues, a + slab * (64 * kLine / 16) + step * 2, b + step * 2,
                                          accumulate || step);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<1>();
    if (held >= 0) release(held);
    held = stage;
    next();
  }
  __device__ void drain() {
    ptx::warpgroup_wait<0>();
    release(held);
    held = -1;
  }
};

__device__ inline void boxes_are_free() {
  if (threadIdx.x % 32 == 0) ptx::wait_stores_read<0>();
  __syncwarp();
}

// Both warpgroups at one tile.
template <PrefillMerge kMerge, int kColumns, bool kGrouped>
__device__ void consume(const PrefillTask& task, const CUtensorMap* y_map, const Ring<Tile<kMerge, kColumns>>& ring,
                        int warpgroup) {
  using T = Tile<kMerge, kColumns>;
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const uint32_t own = ring.own(warpgroup * 4 + warp), sums = own + lane * 16;  // value i of sums at sums + i / 4 * 512
  float acc[T::kValues];
  float other[T::kTwo ? T::kValues : 4];  // accumulators of the second leaf
  float pair[T::kTree ? T::kValues : 4];  // of a tree: a pair that waits for its partner
  Reader<T> reader(ring, task.cluster);
  int announce = 0;  // blocks until the other warpgroup may begin
  int block = 0;
  // Multiplies blocks [block, end) into d, a chain from +0; the last one may be under way behind it.
  const auto leaf = [&](float(&d)[T::kValues], int end) {
    int accumulate = 0;
#pragma unroll 1
    do {
      reader.multiply(d, warpgroup * 64, accumulate);
      if (announce && --announce == 0) ptx::named_barrier_arrive(kBegunBarrier, kConsumers * 128);
      accumulate = 1;
    } while (++block < end);
  };

  // Of a tile that had not so many. Waits for the other one, or arrivals for two tiles might count as everybody's for one.
  const auto announce_late = [&] {
    if (announce) ptx::named_barrier_sync(kBegunBarrier, kConsumers * 128);
    announce = 0;
  };

  TileWalk<kGrouped> walk(task, ring.group_tiles(), kColumns);
  if (walk.done()) return;
  auto following = walk.work();
#pragma unroll 1
  for (bool more = true; more;) {
    const auto work = following;
    if (task.lead) {
      if (warpgroup == 1) {
        ptx::named_barrier_sync(kBegunBarrier, kConsumers * 128);
      } else {
        announce = task.lead + 1;
      }
    }
    block = task.first_block;
    const auto look_ahead = [&] {
      walk.next();
      more = !walk.done();
      if (more) following = walk.work();
    };
    if (work.row + warpgroup * 64 >= work.row_end) {  // no row for this warpgroup
      announce_late();
#pragma unroll 1
      for (; block < task.last_block; ++block) reader.pass(warpgroup);
      look_ahead();
      continue;
    }
    const int row = work.row + warpgroup * 64 + warp * 16;
    ptx::forget(acc);
    ptx::forget(other);
    ptx::forget(pair);
    leaf(acc, task.leaf_end(0));
    look_ahead();  // while it multiplies
    if constexpr (kMerge == PrefillMerge::kChain) {
      reader.drain();
      ptx::pin(acc);
    } else if constexpr (kMerge == PrefillMerge::kFold) {
      if (task.leaves == 1) {
        reader.drain();
        ptx::pin(acc);
      } else {
        int i = 1;
#pragma unroll 1
        do {
          leaf(other, task.leaf_end(i));
          reader.drain();
          ptx::pin(acc);
          ptx::pin(other);
#pragma unroll
          for (int j = 0; j < T::kValues; ++j) acc[j] = numerics::add(acc[j], other[j]);
        } while (++i < task.leaves);
      }
    } else {
      boxes_are_free();
#pragma unroll 1
      for (int i = 1;; i += 2) {
        leaf(other, task.leaf_end(i));
        reader.drain();
        ptx::pin(acc);
        ptx::pin(other);
#pragma unroll
        for (int j = 0; j < T::kValues; ++j) acc[j] = numerics::add(acc[j], other[j]);
        const bool waits = i % 4 == 1, last = i + 1 == task.leaves;
        if (waits) {
#pragma unroll
          for (int j = 0; j < T::kValues; ++j) pair[j] = numerics::add(acc[j], task.minus_zero);
        } else {
#pragma unroll
          for (int j = 0; j < T::kValues; ++j) acc[j] = numerics::add(pair[j], acc[j]);
          if (last) break;
#pragma unroll
          for (int j = 0; j < T::kValues; j += 4)
            ptx::store_shared_float4(sums + j * 128, {acc[j], acc[j + 1], acc[j + 2], acc[j + 3]});
        }
        leaf(acc, task.leaf_end(i + 1));
      }
      if (task.leaves == 8) {
#pragma unroll
        for (int j = 0; j < T::kValues; j += 4) {
          const float4 v = ptx::load_shared_float4(sums + j * 128);
          acc[j] = numerics::add(v.x, acc[j]);
          acc[j + 1] = numerics::add(v.y, acc[j + 1]);
          acc[j + 2] = numerics::add(v.z, acc[j + 2]);
          acc[j + 3] = numerics::add(v.w, acc[j + 3]);
        }
      }
    }
    announce_late();
    if (task.bias) add_bias(task, acc, work.column, 1);
    // What follows writes where other lanes of this warp may still read their sums, or boxes still leave.
    if constexpr (T::kSums)
      __syncwarp();
    else
      boxes_are_free();
    if constexpr (!T::kTree) {
      if (task.gated) {
        write_gated<kGrouped>(task, y_map, acc, row, work.row_end, work.column / 2, own);
        continue;
      }
    }
    write_slab<T, kGrouped, 0>(task, y_map, acc, row, work.row_end, work.column, own);
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

// Each warpgroup has every second tile, whole: while one multiplies, the other one writes.
template <class T>
__device__ void consume_in_turns(const PrefillTask& task, const CUtensorMap* y_map, const Ring<T>& ring, int warpgroup) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32, blocks = task.last_block - task.first_block;
  const uint32_t own = ring.own(warpgroup * 4 + warp);
  float acc[T::kValues];
  Reader<T> reader(ring, task.cluster);
  TileWalk<false> walk(task, 0, T::kColumns);
  if (warpgroup == 1) {
    ptx::named_barrier_arrive(kTurnBarrier, kConsumers * 128);
    walk.next();
    reader.skip(blocks);
  }
  if (walk.done()) return;
  auto following = walk.work();
#pragma unroll 1
  for (bool more = true; more;) {
    const auto work = following;
    ptx::forget(acc);
    // Behind it all of the other one's stages have arrived: a parity tells only a stage's next turn from its last one.
    ptx::named_barrier_sync(kTurnBarrier + warpgroup, kConsumers * 128);
    int accumulate = 0;
#pragma unroll 1
    for (int i = 0; i < blocks; ++i) {
      reader.multiply(acc, 0, accumulate);
      accumulate = 1;
    }
    ptx::named_barrier_arrive(kTurnBarrier + 1 - warpgroup, kConsumers * 128);
    walk.next();
    walk.next();
    more = !walk.done();
    if (more) following = walk.work();
    reader.drain();
    ptx::pin(acc);
    reader.skip(blocks);
    boxes_are_free();
    const int row = work.row + warp * 16;
    if (task.bias) add_bias(task, acc, work.column, 2);
    write_slab<T, false, 0>(task, y_map, acc, row, work.row_end, work.column, own);
    write_slab<T, false, 1>(task, y_map, acc, row + 64, work.row_end, work.column, own);
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

template <PrefillMerge kMerge, int kColumns, bool kGrouped>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap y_map,
                   const __grid_constant__ PrefillTask task) {
  using T = Tile<kMerge, kColumns>;
  static_assert(!(T::kTurns && kGrouped));
  extern __shared__ std::byte shared[];
  const Ring<T> ring(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < T::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), 1);
      ptx::barrier_init(ring.empty(stage), (T::kTurns ? 1 : kConsumers) * task.cluster);
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
      if (ptx::elect_one()) produce<T, kGrouped>(task, &x_map, ring);
      __syncwarp();
    }
  } else {
    ptx::more_registers<kConsumerRegisters>();
    if constexpr (T::kTurns) {
      consume_in_turns<T>(task, &y_map, ring, warpgroup);
    } else {
      consume<kMerge, kColumns, kGrouped>(task, &y_map, ring, warpgroup);
    }
  }
  // Who leaves early would take barriers and memory away that the other block still writes to.
  __syncwarp();
  if (task.cluster > 1) ptx::cluster_sync();
}

inline PrefillTask task_of(const LinearShape& shape, const PrefillPlan& plan) {
  PrefillTask task{};
  task.rows = shape.rows;
  task.outputs = shape.outputs;
  task.y_columns = shape.outputs;
  task.padded = static_cast<int>(padded_outputs(shape.outputs));
  task.row_tiles = plan.row_tiles;
  task.column_tiles = plan.column_tiles;
  task.cluster = plan.cluster;
  task.band = plan.band;
  task.lead = plan.lead;
  task.leaves = shape.leaves();
  task.first_block = shape.leaf_begin.front();
  task.last_block = shape.leaf_begin.back();
  task.by_segments = shape.by_segments;
  if (shape.by_segments) std::copy(shape.leaf_begin.begin(), shape.leaf_begin.end(), task.leaf_begin);
  task.minus_zero = -0.0f;
  return task;
}

// y in boxes of 16 rows times 128 bytes, or 64 where narrow, swizzled.
inline CUtensorMap output_map(const Device& device, const PrefillTask& task, bool narrow) {
  const bool fp32 = task.y == nullptr;
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(task.y_columns), static_cast<cuuint64_t>(task.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(task.y_stride) * (fp32 ? sizeof(float) : sizeof(Bf16))};
  const cuuint32_t box[2] = {(narrow ? 64u : 128u) / (fp32 ? 4 : 2), 16}, steps[2] = {1, 1};
  const CUresult result = device.cuda().encode_tensor_map(
      &map, fp32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
      fp32 ? static_cast<void*>(task.y_fp32) : task.y, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      narrow ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw DeviceFailure("cuTensorMapEncodeTiled refuses the outputs of a linear");
  return map;
}

template <PrefillMerge kMerge, int kColumns, bool kGrouped>
void run(const Device& device, const CUtensorMap& x_map, const PrefillPlan& plan, const PrefillTask& task) {
  using T = Tile<kMerge, kColumns>;
  launch(device,
         {.grid = static_cast<unsigned>(plan.grid),
          .block = kThreads,
          .shared = T::kShared + group_tiles_bytes(task.groups.count),
          .cluster = static_cast<unsigned>(plan.cluster),
          .dependent = true},
         prefill_kernel<kMerge, kColumns, kGrouped>, x_map,
         task.boxes ? output_map(device, task, T::kNarrow || task.gated) : x_map, task);
}

template <bool kGrouped>
void run(const Device& device, const Bf16* x, int64_t x_stride, int64_t inputs, const PrefillPlan& plan, PrefillTask task) {
  task.wide_y = task.y ? reinterpret_cast<uintptr_t>(task.y) % 16 == 0 && task.y_stride % 8 == 0
                       : reinterpret_cast<uintptr_t>(task.y_fp32) % 8 == 0 && task.y_stride % 2 == 0;
  task.boxes = task.y ? task.wide_y : reinterpret_cast<uintptr_t>(task.y_fp32) % 16 == 0 && task.y_stride % 4 == 0;
  const CUtensorMap x_map = tensor_map(device, x, task.rows, inputs, x_stride, kTileRows);
  using enum PrefillMerge;
  const auto start = [&](auto merge, auto columns) {
    run<decltype(merge)::value, decltype(columns)::value, kGrouped>(device, x_map, plan, task);
  };
  const auto fold = [&](auto columns) { start(std::integral_constant<PrefillMerge, kFold>(), columns); };
  const std::integral_constant<int, 128> narrow;
  if (plan.merge == kChain) return start(std::integral_constant<PrefillMerge, kChain>(), std::integral_constant<int, 256>());
  if (plan.merge == kTree) return start(std::integral_constant<PrefillMerge, kTree>(), narrow);
  if constexpr (!kGrouped)
    if (plan.merge == kTurns) return start(std::integral_constant<PrefillMerge, kTurns>(), narrow);
  if (plan.columns == 192) return fold(std::integral_constant<int, 192>());
  if (plan.columns == 128) return fold(narrow);
  fold(std::integral_constant<int, 64>());
}

}  // namespace invar::cuda::tc::prefill
