// A block: one producer thread, two warpgroups of consumers. Rows of x are the M side of wgmma, weights the N side; a stage of
// the ring is 64 k of both. In a cluster two blocks with the same outputs fetch half of the weights each and give them to both.
//
// The warpgroups have 64 rows of a tile each. A tile of one leaf is rounded into half as many registers, from where it leaves
// while the next one is multiplied. Several leaves go in turn to two or three sets of accumulators, so that a warpgroup adds, or
// writes a tile, while its next leaf is multiplied. Or, where a tile is short, the warpgroups have a tile each and take turns.
#pragma once

#include <algorithm>
#include <bit>
#include <type_traits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/cuda/tensor_core_prefill_output.cuh"
#include "kernels/linear/cuda/tensor_core_tree.cuh"

namespace invar::cuda::tc::prefill {

// Blocks of the next tile that are multiplied beside a tile's way out, at most; beside a gated one's.
constexpr int kMostBeside = 4, kMostBesideGated = 8;
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

template <class Tile>
__device__ void produce(const PrefillTask& task, const CUtensorMap* x_map, const Ring<Tile>& ring) {
  constexpr int kColumns = Tile::kColumns;
  TileWalk walk(task, kColumns);
  struct Step {
    int unit, block;
    TileWalk::Work work;
  };
  const auto begin_unit = [&](Step* s) {
    s->unit = walk.unit;
    s->work = walk.work();
    s->block = task.first_block;
  };
  const auto advance = [&](Step* s) {
    if (++s->block < task.last_block) return;
    walk.unit = s->unit;
    walk.next();
    s->unit = walk.unit;
    if (!walk.done()) begin_unit(s);
  };
  const auto load_weights = [&](const Step& s, int stage) {
    const uint32_t full = ring.full(stage);
    const int outputs = min(kColumns, task.padded - s.work.column);
    ptx::barrier_expect(full, Tile::kRowBytes + outputs * kLine);
    const std::byte* from = task.weights + (int64_t{s.block} * task.padded + s.work.column) * kLine;
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
  Step start;
  begin_unit(&start);
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
  // One block of 64 k times this warpgroup's rows, which begin at `row` of the tile, into d, from +0 where a leaf begins; leaves
  // it under way, and only it. That a leaf begins is known when this is compiled: d is then free before, for other values.
  template <bool kBegins>
  __device__ __forceinline__ void multiply(float (&d)[T::kValues], int row) {
    ptx::barrier_wait(ring.full(stage), parity);
    const uint64_t a = ptx::matrix_descriptor(ring.rows(stage) + row * kLine);
    const uint64_t b = ptx::matrix_descriptor(ring.weights(stage));
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int slab = 0; slab < T::kSlabs; ++slab)
        ptx::Wgmma<T::kColumns>::multiply(d + slab * T::kSlabValues, a + slab * (64 * kLine / 16) + step * 2, b + step * 2,
                                          kBegins && step == 0 ? 0 : 1);
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

// Both warpgroups at one tile.
template <class T>
__device__ void consume(const PrefillTask& task, const OutputMaps& y_maps, const Ring<T>& ring, int warpgroup) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, first_row = warpgroup * 64;
  const uint32_t own = ring.own(warpgroup * 4 + warp), sums = own + lane * 16;
  float acc[T::kValues];
  float other[T::kTwo ? T::kValues : 4], third[T::kTree ? T::kValues : 4];
  Reader<T> reader(ring, task.cluster);
  int block = 0;
  // A leaf's first block is under way in d behind this, and all before it is complete.
  const auto begin = [&](float(&d)[T::kValues]) {
    reader.template multiply<true>(d, first_row);
    ++block;
  };
  const auto go_on = [&](float(&d)[T::kValues], int end) {
#pragma unroll 1
    for (; block < end; ++block) reader.template multiply<false>(d, first_row);
  };
  const auto one_more = [&] {
    reader.template multiply<false>(acc, first_row);
    ++block;
  };
  // The residual stream's rows: early into the second-level cache; to the warp's boxes when it has read its sums.
  const uint32_t residual_there = ring.residual(warpgroup * 4 + warp);
  uint32_t residual_parity = 0;
  const auto ask_for_residual = [&](const TileWalk::Work& work) {
    if (!task.adds || lane != 0) return;
    each_residual_box<T>(task, work.column,
                         [&](int, int column) { ptx::prefetch_box(y_maps.of, work.row + first_row + warp * 16, column); });
  };
  const auto fetch_residual = [&](const TileWalk::Work& work) {
    if (!task.adds) return;
    ptx::fence_async_shared();
    __syncwarp();
    if (lane != 0) return;
    int boxes = 0;
    each_residual_box<T>(task, work.column, [&](int, int) { ++boxes; });
    ptx::barrier_expect(residual_there, boxes * T::kBoxBytes);
    each_residual_box<T>(task, work.column, [&](int box, int column) {
      ptx::copy_box(own + box * T::kBoxBytes, y_maps.of, work.row + first_row + warp * 16, column, residual_there);
    });
  };
  const auto write = [&](auto& values, const TileWalk::Work& work, const auto& meanwhile) {
    const CUtensorMap* y_map = y_maps.of + task.owner(work.row);
    const int row = task.owned_row(work.row) + first_row + warp * 16;
    if constexpr (std::is_same_v<decltype(values), float(&)[T::kValues]>)
      if (task.bias) add_bias(task, values, work.column, 1);
    if constexpr (T::kAdds && std::is_same_v<decltype(values), float(&)[T::kValues]>)
      if (task.adds) {
        ptx::barrier_wait(residual_there, residual_parity);
        residual_parity ^= 1;
        add_residual<T>(values, own);
      }
    // What follows writes where other lanes of this warp may still read their sums, or boxes still leave.
    if constexpr (T::kSums)
      __syncwarp();
    else
      boxes_are_free();
    if constexpr (T::kGates) {
      if (task.gated) {
        write_gated(task, y_map, values, row, work.row_end, work.column / 2, own, meanwhile);
        return;
      }
    }
    write_slab<T, 0>(task, y_map, values, row, work.row_end, work.column, own, meanwhile);
  };

  TileWalk walk(task, T::kColumns);
  // multiply_tile leaves in `values`, which is not acc, what finish() makes a tile's values of: they leave from there while the
  // next tile's first blocks are multiplied. That begins without a condition, even where a warpgroup has no row; else the
  // compiler would wait for every multiplication.
  const auto overlapping = [&](auto& values, const auto& multiply_tile, const auto& finish) {
    if (walk.done()) return;
    auto following = walk.work();
    block = task.first_block;
    begin(acc);
#pragma unroll 1
    for (;;) {
      const auto work = following;
      walk.next();
      const bool more = !walk.done();
      if (more) following = walk.work();
      multiply_tile(work);
      const auto leave = [&](const auto& meanwhile) {
        finish();
        if constexpr (T::kAdds) fetch_residual(work);
        write(values, work, meanwhile);
      };
      if (!more) {
        leave(Nothing());
        break;
      }
      block = task.first_block;
      begin(acc);
      leave([&] {
        if constexpr (!T::kTree) one_more();
      });
    }
  };
  // Short tiles, and fp32 values of one leaf; multiply_tile leaves their values in acc.
  const auto one_by_one = [&](const auto& multiply_tile) {
    if (walk.done()) return;
    auto following = walk.work();
#pragma unroll 1
    for (bool more = true; more;) {
      const auto work = following;
      block = task.first_block;
      begin(acc);
      walk.next();
      more = !walk.done();
      if (more) following = walk.work();
      multiply_tile();
      write(acc, work, Nothing());
    }
  };

  if constexpr (T::kTree) {
    if (T::kAdds && task.adds) ptx::wait_for_earlier_kernels();  // whose results are read otherwise than through the ring
    overlapping(
        third,
        [&](const TileWalk::Work& work) {
          multiply_tree<T::kLeaves>(
              acc, other, third, sums, begin,
              [&](float(&d)[T::kValues], int leaf) {
                if (T::kAdds && leaf == T::kLeaves - 1) ask_for_residual(work);
                go_on(d, task.leaf_end(leaf));
              },
              [&] { reader.drain(); });
        },
        [&] { finish_tree<T::kLeaves>(other, third, sums); });
  } else if constexpr (T::kFold) {
    const auto two_leaves = [&](float(&sum)[T::kValues]) {
      go_on(acc, task.leaf_end(0));
      begin(other);
      go_on(other, task.leaf_end(1));
      reader.drain();
      ptx::pin(acc);
      ptx::pin(other);
      add_sets(sum, acc, other);
    };
    if (task.leaf_end(0) - task.first_block >= kMostBeside) {
      overlapping(
          other, [&](const TileWalk::Work&) { two_leaves(other); }, Nothing());
    } else {
      one_by_one([&] { two_leaves(acc); });
    }
  } else if (task.y && task.last_block - task.first_block >= (task.gated ? kMostBesideGated : kMostBeside)) {
    uint32_t words[T::kValues / 2];
    overlapping(
        words,
        [&](const TileWalk::Work& work) {
          go_on(acc, task.last_block);
          reader.drain();
          ptx::pin(acc);
          if (task.bias) add_bias(task, acc, work.column, 1);
          round_values(acc, task.gated, words);
        },
        Nothing());
  } else {
    one_by_one([&] {
      go_on(acc, task.last_block);
      reader.drain();
      ptx::pin(acc);
    });
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

// Each warpgroup has every second tile, whole: while one multiplies, the other one writes.
template <class T>
__device__ void consume_in_turns(const PrefillTask& task, const OutputMaps& y_maps, const Ring<T>& ring, int warpgroup) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32, blocks = task.last_block - task.first_block;
  const uint32_t own = ring.own(warpgroup * 4 + warp);
  float acc[T::kValues];
  Reader<T> reader(ring, task.cluster);
  TileWalk walk(task, T::kColumns);
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
    // Behind it all of the other one's stages have arrived: a parity tells only a stage's next turn from its last one.
    ptx::named_barrier_sync(kTurnBarrier + warpgroup, kConsumers * 128);
    reader.template multiply<true>(acc, 0);
#pragma unroll 1
    for (int i = 1; i < blocks; ++i) reader.template multiply<false>(acc, 0);
    ptx::named_barrier_arrive(kTurnBarrier + 1 - warpgroup, kConsumers * 128);
    walk.next();
    walk.next();
    more = !walk.done();
    if (more) following = walk.work();
    reader.drain();
    ptx::pin(acc);
    reader.skip(blocks);
    boxes_are_free();
    const CUtensorMap* y_map = y_maps.of + task.owner(work.row);
    const int row = task.owned_row(work.row) + warp * 16;
    if (task.bias) add_bias(task, acc, work.column, 2);
    write_slab<T, 0>(task, y_map, acc, row, work.row_end, work.column, own);
    write_slab<T, 1>(task, y_map, acc, row + 64, work.row_end, work.column, own);
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

template <PrefillMerge kMerge, int kColumns, int kLeaves>
__global__ void __launch_bounds__(kThreads, 1)
    prefill_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ OutputMaps y_maps,
                   const __grid_constant__ PrefillTask task) {
  using T = Tile<kMerge, kColumns, kLeaves>;
  extern __shared__ std::byte shared[];
  const Ring<T> ring(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < T::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), 1);
      ptx::barrier_init(ring.empty(stage), (T::kTurns ? 1 : kConsumers) * task.cluster);
    }
    if constexpr (T::kAdds)
      for (int warp = 0; warp < kConsumers * 4; ++warp) ptx::barrier_init(ring.residual(warp), 1);
    ptx::fence_barrier_init();
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
      if (ptx::elect_one()) produce<T>(task, &x_map, ring);
      __syncwarp();
    }
  } else {
    ptx::more_registers<kConsumerRegisters>();
    if constexpr (T::kTurns) {
      consume_in_turns<T>(task, y_maps, ring, warpgroup);
    } else {
      consume<T>(task, y_maps, ring, warpgroup);
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
  task.first_block = shape.leaf_begin.front();
  task.last_block = shape.leaf_begin.back();
  std::copy(shape.leaf_begin.begin(), shape.leaf_begin.end(), task.leaf_begin);
  return task;
}

// `rows` rows of y, or of its values, in boxes of 16 rows times 128 bytes, or 64 where narrow, swizzled.
inline CUtensorMap output_map(const Device& device, const PrefillTask& task, void* y, int64_t rows, bool narrow) {
  const bool fp32 = task.y == nullptr;
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(task.y_columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(task.y_stride) * (fp32 ? sizeof(float) : sizeof(Bf16))};
  const cuuint32_t box[2] = {(narrow ? 64u : 128u) / (fp32 ? 4 : 2), 16}, steps[2] = {1, 1};
  const CUresult result = device.cuda().encode_tensor_map(
      &map, fp32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, y, sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, narrow ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw DeviceFailure("cuTensorMapEncodeTiled refuses the outputs of a linear");
  return map;
}
inline OutputMaps output_maps(const Device& device, const PrefillTask& task, const RowOwners& owners, bool narrow) {
  OutputMaps maps{};
  if (task.boxes && owners.count == 0)
    maps.of[0] = output_map(device, task, task.y ? static_cast<void*>(task.y) : task.y_fp32, task.rows, narrow);
  for (int owner = 0; owner < owners.count; ++owner)
    if (const int64_t rows = RowOwners::held(task.rows, owners.count, owner))
      maps.of[owner] = output_map(device, task, owners.values[owner], rows, narrow);
  return maps;
}

template <PrefillMerge kMerge, int kColumns, int kLeaves = 0>
void run(const Device& device, const CUtensorMap& x_map, const PrefillPlan& plan, const PrefillTask& task,
         const RowOwners& owners) {
  using T = Tile<kMerge, kColumns, kLeaves>;
  launch(device,
         {.grid = static_cast<unsigned>(plan.grid),
          .block = kThreads,
          .shared = T::kShared,
          .cluster = static_cast<unsigned>(plan.cluster),
          .dependent = true},
         prefill_kernel<kMerge, kColumns, kLeaves>, x_map, output_maps(device, task, owners, T::kNarrow || task.gated), task);
}

inline void run(const Device& device, const Bf16* x, int64_t x_stride, int64_t inputs, const LinearShape& shape,
                const PrefillPlan& plan, PrefillTask task, const RowOwners& owners = {}) {
  know_outputs(&task);
  task.owner_shift = std::countr_zero(static_cast<unsigned>(std::max(1, owners.count)));
  const CUtensorMap x_map = tensor_map(device, x, task.rows, inputs, x_stride, kTileRows);
  using enum PrefillMerge;
  if (plan.merge == kTurns) return run<kTurns, 128>(device, x_map, plan, task, owners);
  if (plan.merge == kTree && shape.leaves() == 8) return run<kTree, 128, 8>(device, x_map, plan, task, owners);
  if (plan.merge == kTree) return run<kTree, 128, 4>(device, x_map, plan, task, owners);
  if (plan.merge == kFold && plan.columns == 192) return run<kFold, 192>(device, x_map, plan, task, owners);
  if (plan.merge == kFold) return run<kFold, 128>(device, x_map, plan, task, owners);
  if (plan.columns == 256) return run<kChain, 256>(device, x_map, plan, task, owners);
  if (plan.columns == 192) return run<kChain, 192>(device, x_map, plan, task, owners);
  if (plan.columns == 160) return run<kChain, 160>(device, x_map, plan, task, owners);
  if (plan.columns == 128) return run<kChain, 128>(device, x_map, plan, task, owners);
  if (plan.columns == 96) return run<kChain, 96>(device, x_map, plan, task, owners);
  run<kChain, 64>(device, x_map, plan, task, owners);
}

}  // namespace invar::cuda::tc::prefill
