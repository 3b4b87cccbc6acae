// The prefill schedule (tensor_core_prefill.cuh) for ragged groups of rows: which tile belongs to which group is found on the
// device. The rows of x may come from where an index says, one by one, so that nobody has to gather them first.
#pragma once

#include <type_traits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/cuda/tensor_core_grouped_output.cuh"
#include "kernels/linear/cuda/tensor_core_shape.h"
#include "kernels/linear/cuda/tensor_core_tree.cuh"

namespace invar::cuda::tc::grouped {

// Blocks of the next tile that are multiplied beside a gated tile's way out.
constexpr int kMostBeside = 8;

// One thread's: the weights of a stage, which expects `more` bytes besides.
template <class T>
__device__ void fetch_weights(const GroupedTask& task, const Ring<T>& ring, const std::byte* weights, int column, int block,
                              int stage, int more) {
  const int bytes = min(T::kColumns, task.padded - column) * kLine;
  ptx::barrier_expect(ring.full(stage), bytes + more);
  ptx::copy_bulk(ring.weights(stage), weights + (int64_t{block} * task.padded + column) * kLine, bytes, ring.full(stage));
}

// By one thread: rows in boxes of 64.
template <class T>
__device__ void produce(const GroupedTask& task, const CUtensorMap* x_map, const Ring<T>& ring) {
  constexpr int kBoxRows = kTileRows / 2, kBoxBytes = kBoxRows * kLine;
  ptx::prefetch_tensor_map(x_map);
  TileWalk walk(task, ring.groups(task.groups.count), T::kColumns);
  int stage = 0;
  uint32_t parity = 1;
  int unit = blockIdx.x;
  while (unit < walk.units) {
    const int taken = walk.take();
    const std::byte* weights;
    const Work work = walk.work(unit, &weights);
    const bool half = work.row_end - work.row <= kBoxRows;
#pragma unroll 1
    for (int block = task.first_block; block < task.last_block; ++block) {
      ptx::barrier_wait(ring.empty(stage), parity);
      if (block == task.first_block) ring.set_work(stage, work);
      fetch_weights(task, ring, weights, work.column, block, stage, half ? kBoxBytes : 2 * kBoxBytes);
      ptx::copy_box(ring.rows(stage), x_map, work.row, block * static_cast<int>(kBlockInputs), ring.full(stage));
      if (!half)
        ptx::copy_box(ring.rows(stage) + kBoxBytes, x_map, work.row + kBoxRows, block * static_cast<int>(kBlockInputs),
                      ring.full(stage));
      if (++stage == T::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    unit = walk.unit_of(taken);
  }
  ptx::barrier_wait(ring.empty(stage), parity);
  ring.set_work(stage, {-1, 0, 0});
  ptx::barrier_arrive(ring.full(stage));
}

// By all threads of the warpgroup: eight have a row, 16 bytes each. Rows that the group has not are not fetched: what lies there
// makes rubbish of rows that nobody writes.
template <class T>
__device__ void gather(const GroupedTask& task, const Ring<T>& ring) {
  constexpr int kRows = kTileRows / 16;  // of a thread
  const int thread = threadIdx.x % 128, first = thread / 8, piece = thread % 8;
  const uint32_t place = first * kLine + ((piece ^ (first & 7)) << 4);
  const uint4* x = reinterpret_cast<const uint4*>(task.x) + piece;
  const auto stride = static_cast<uint32_t>(task.x_stride / 8);
  TileWalk walk(task, ring.groups(task.groups.count), T::kColumns);
  int stage = 0;
  uint32_t parity = 1;
  int unit = blockIdx.x;
  while (unit < walk.units) {
    const int taken = thread == 0 ? walk.take() : 0;
    const std::byte* weights;
    const Work work = walk.work(unit, &weights);
    const int rows = work.row_end - work.row - first;
    uint32_t from[kRows];  // in units of 16 bytes
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int m = work.row + first + i * 16;
      from[i] = i * 16 >= rows ? 0 : static_cast<uint32_t>(task.index ? task.index[m] : m) * stride;
    }
#pragma unroll 1
    for (int block = task.first_block; block < task.last_block; ++block) {
      const uint32_t to = ring.rows(stage) + place;
      ptx::barrier_wait(ring.empty(stage), parity);
      if (thread == 0) {
        if (block == task.first_block) ring.set_work(stage, work);
        fetch_weights(task, ring, weights, work.column, block, stage, 0);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        if (i * 16 < rows) ptx::copy_16_bytes(to + i * 16 * kLine, x + from[i] + block * 8, true);
      ptx::barrier_arrive_with_copies(ring.full(stage));
      if (++stage == T::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
    // The next tile is one thread's to know. The first wait is for those who have not read this one's yet.
    ptx::named_barrier_sync(kGatherBarrier, 128);
    if (thread == 0) ptx::store_shared_int(ring.place_of_unit(), walk.unit_of(taken));
    ptx::named_barrier_sync(kGatherBarrier, 128);
    unit = ptx::load_shared_int(ring.place_of_unit());
  }
  ptx::barrier_wait(ring.empty(stage), parity);
  if (thread == 0) {
    ring.set_work(stage, {-1, 0, 0});
    ptx::barrier_arrive(ring.full(stage));
  }
  ptx::barrier_arrive(ring.full(stage));
}

// A warpgroup's way through the ring.
template <class T>
struct Reader {
  const Ring<T>& ring;
  const int thread;
  int stage = 0, held = -1;  // held: read by multiplications that may be under way
  uint32_t parity = 0;

  __device__ explicit Reader(const Ring<T>& r) : ring(r), thread(threadIdx.x % 128) {}
  __device__ void next() {
    if (++stage == T::kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  // The stage is read to its end.
  __device__ void release(int which) const {
    if (thread == 0) ptx::barrier_arrive(ring.empty(which));
  }
  // A stage that this warpgroup has nothing to do with. Its warps wait for each other as multiplications make them: who is a
  // whole turn of the ring late could not tell the parities apart.
  __device__ void pass(int warpgroup) {
    ptx::barrier_wait(ring.full(stage), parity);
    ptx::named_barrier_sync(kPassBarrier + warpgroup, 128);
    release(stage);
    next();
  }
  // The tile that begins here; row < 0: none, that was all.
  __device__ Work work() const {
    ptx::barrier_wait(ring.full(stage), parity);
    return ring.work(stage);
  }
  // One block of 64 k times this warpgroup's rows, which begin at `row` of the tile, into d, from +0 where a leaf begins; leaves
  // it under way, and only it. That a leaf begins is known when this is compiled: d is then free before, for other values.
  template <bool kBegins>
  __device__ __forceinline__ void multiply(float (&d)[T::kValues], int row) {
    ptx::barrier_wait(ring.full(stage), parity);
    if constexpr (T::kGather) ptx::fence_async_shared();  // threads brought the rows, not the copy engine
    const uint64_t a = ptx::matrix_descriptor(ring.rows(stage) + row * kLine);
    const uint64_t b = ptx::matrix_descriptor(ring.weights(stage));
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step)
      ptx::Wgmma<T::kColumns>::multiply(d, a + step * 2, b + step * 2, kBegins && step == 0 ? 0 : 1);
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

// Both warpgroups at one tile, 64 rows each; one that has none passes the tile by. Where a tile's values leave while the next one
// is multiplied, that one begins without a condition, or the compiler would wait for every multiplication.
template <class T>
__device__ void consume(const GroupedTask& task, const CUtensorMap* y_map, const Ring<T>& ring, int warpgroup) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, first_row = warpgroup * 64;
  const uint32_t own = ring.own(warpgroup * 4 + warp), sums = own + lane * 16;
  float acc[T::kValues];
  Reader<T> reader(ring);
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
  // The next tile that has rows for this warpgroup.
  const auto find = [&](Work* work) {
    for (;;) {
      *work = reader.work();
      block = task.first_block;
      if (work->row < 0) return false;
      if (work->row + first_row < work->row_end) return true;
#pragma unroll 1
      for (int i = task.first_block; i < task.last_block; ++i) reader.pass(warpgroup);
    }
  };
  Work following;
  if (!find(&following)) return;
  begin(acc);
  if constexpr (T::kTree) {
    float other[T::kValues], third[T::kValues];
    const auto to_leaf_end = [&](float(&d)[T::kValues], int leaf) { go_on(d, task.leaf_begin[leaf + 1]); };
#pragma unroll 1
    for (;;) {
      const Work work = following;
      const auto write = [&] {
        finish_tree<T::kLeaves>(other, third, sums);
        // What follows writes where other lanes of this warp may still read their sums, or boxes still leave.
        if constexpr (T::kSums)
          __syncwarp();
        else
          boxes_are_free();
        write_tile<T>(task, y_map, third, work.row + first_row + warp * 16, work.row_end, work.column, own);
      };
      multiply_tree<T::kLeaves>(acc, other, third, sums, begin, to_leaf_end, [&] { reader.drain(); });
      if (!find(&following)) {
        write();
        break;
      }
      begin(acc);
      write();
    }
  } else if constexpr (T::kRounds) {
#pragma unroll 1
    for (;;) {
      const Work work = following;
      const int row = work.row + first_row + warp * 16;
      go_on(acc, task.last_block);
      reader.drain();
      ptx::pin(acc);
      uint32_t words[T::kValues / 2];
      round_values(acc, task.gated, words);
      const auto write = [&](const auto& meanwhile) {
        boxes_are_free();
        if (task.gated)
          write_gated(task, y_map, words, row, work.row_end, work.column / 2, own, meanwhile);
        else
          write_tile<T>(task, y_map, words, row, work.row_end, work.column, own);
      };
      if (!find(&following)) {
        write(Nothing());
        break;
      }
      begin(acc);
      write([&] {
        reader.template multiply<false>(acc, first_row);
        ++block;
      });
    }
  } else {
    float other[T::kValues];
#pragma unroll 1
    for (;;) {
      const Work work = following;
      const int row = work.row + first_row + warp * 16;
      go_on(acc, task.leaf_end(0));
      if (task.leaves > 1) {
        begin(other);
        go_on(other, task.leaf_end(1));
        reader.drain();
        ptx::pin(acc);
        ptx::pin(other);
        add_sets(acc, acc, other);
      } else {
        reader.drain();
        ptx::pin(acc);
      }
      boxes_are_free();
      if (task.gated)
        write_gated(task, y_map, acc, row, work.row_end, work.column / 2, own);
      else
        write_tile<T>(task, y_map, acc, row, work.row_end, work.column, own);
      if (!find(&following)) break;
      begin(acc);
    }
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    grouped_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap y_map,
                   const __grid_constant__ GroupedTask task) {
  extern __shared__ std::byte shared[];
  const Ring<T> ring(shared);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < T::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), T::kGather ? 129 : 1);
      ptx::barrier_init(ring.empty(stage), kConsumers);
    }
    ptx::fence_barrier_init();
  }
  ptx::wait_for_earlier_kernels();  // the offsets are another kernel's
  ring.groups(task.groups.count).fill(task.groups);
  __syncthreads();
  ptx::let_next_kernel_start();
  const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);
  if (warpgroup == kConsumers) {
    ptx::fewer_registers<T::kProducerRegisters>();
    if constexpr (T::kGather) {
      gather<T>(task, ring);
    } else if (threadIdx.x / 32 == kConsumers * 4) {
      if (ptx::elect_one()) produce<T>(task, &x_map, ring);
      __syncwarp();
    }
  } else {
    ptx::more_registers<T::kConsumerRegisters>();
    consume<T>(task, &y_map, ring, warpgroup);
  }
}

// y in boxes of 16 rows times 128 bytes, or 64 where narrow, swizzled.
inline CUtensorMap output_map(const Device& device, const GroupedTask& task, bool narrow) {
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

template <PrefillMerge kMerge, int kColumns, int kLeaves = 0>
void run(const Device& device, int64_t inputs, GroupedTask task) {
  using T = Tile<kMerge, kColumns, kLeaves>;
  static_assert(T::kShared + GroupTable::bytes(kMostGroups) <= kBlockShared);
  know_outputs(&task);
  task.column_tiles = (task.outputs + kColumns - 1) / kColumns;
  task.taken = device.cuda().taken;
  const CUtensorMap x_map =
      T::kGather ? CUtensorMap{} : tensor_map(device, task.x, task.rows, inputs, task.x_stride, kTileRows / 2);
  const CUtensorMap y_map = task.boxes ? output_map(device, task, T::kNarrow || task.gated) : CUtensorMap{};
  launch(device,
         {.grid = static_cast<unsigned>(chip_of(device).multiprocessors),
          .block = kThreads,
          .shared = T::kShared + GroupTable::bytes(task.groups.count),
          .dependent = true},
         grouped_kernel<T>, x_map, y_map, task);
}

}  // namespace invar::cuda::tc::grouped
