// The prefill schedule (tensor_core_prefill.cuh) for ragged groups of rows: which tile belongs to which group is found on the
// device. The rows of x may come from where an index says, one by one, so that nobody has to gather them first.
#pragma once

#include <type_traits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/cuda/tensor_core_grouped_output.cuh"
#include "kernels/linear/cuda/tensor_core_shape.h"
#include "kernels/linear/cuda/tensor_core_tree.cuh"

namespace invar::cuda::tc::grouped {

// One thread's: the weights of a stage, which expects `more` bytes besides.
template <class T>
__device__ void fetch_weights(const GroupedTask& task, const Ring<T>& ring, const TileWalk::Work& work, int block, int stage,
                              int more) {
  const int bytes = min(T::kColumns, task.padded - work.column) * kLine;
  ptx::barrier_expect(ring.full(stage), bytes + more);
  ptx::copy_bulk(ring.weights(stage), work.weights + (int64_t{block} * task.padded + work.column) * kLine, bytes,
                 ring.full(stage));
}

// By one thread: rows in boxes.
template <class T>
__device__ void produce(const GroupedTask& task, const CUtensorMap* x_map, const Ring<T>& ring) {
  ptx::prefetch_tensor_map(x_map);
  int stage = 0;
  uint32_t parity = 1;
  for (TileWalk walk(task, ring.groups(task.groups.count), T::kColumns); !walk.done(); walk.next()) {
    const auto work = walk.work();
#pragma unroll 1
    for (int block = task.first_block; block < task.last_block; ++block) {
      ptx::barrier_wait(ring.empty(stage), parity);
      fetch_weights(task, ring, work, block, stage, T::kRowBytes);
      ptx::copy_box(ring.rows(stage), x_map, work.row, block * static_cast<int>(kBlockInputs), ring.full(stage));
      if (++stage == T::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
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
  int stage = 0;
  uint32_t parity = 1;
  for (TileWalk walk(task, ring.groups(task.groups.count), T::kColumns); !walk.done(); walk.next()) {
    const auto work = walk.work();
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
      if (thread == 0) fetch_weights(task, ring, work, block, stage, 0);
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        if (i * 16 < rows) ptx::copy_16_bytes(to + i * 16 * kLine, x + from[i] + block * 8, true);
      ptx::barrier_arrive_with_copies(ring.full(stage));
      if (++stage == T::kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
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
  // One block of 64 k times this warpgroup's rows, which begin at `row` of the tile, into d; leaves it under way. A tree's leaves
  // begin where `accumulate` is known to be 0 when this is compiled: their set is then free before, for other values.
  __device__ __forceinline__ void multiply(float (&d)[T::kValues], int row, int accumulate) {
    ptx::barrier_wait(ring.full(stage), parity);
    if constexpr (T::kGather) ptx::fence_async_shared();  // threads brought the rows, not the copy engine
    const uint64_t a = ptx::matrix_descriptor(ring.rows(stage) + row * kLine);
    const uint64_t b = ptx::matrix_descriptor(ring.weights(stage));
    ptx::warpgroup_fence();
#pragma unroll
    for (int step = 0; step < 4; ++step) ptx::Wgmma<T::kColumns>::multiply(d, a + step * 2, b + step * 2, accumulate || step);
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
__device__ void consume(const GroupedTask& task, const CUtensorMap* y_map, const Ring<T>& ring, int warpgroup) {
  constexpr PrefillMerge kMerge = T::kMerge;
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const uint32_t own = ring.own(warpgroup * 4 + warp);
  float acc[T::kValues];
  float other[T::kTwo ? T::kValues : 4];  // accumulators of the second leaf
  Reader<T> reader(ring);
  int block = 0;
  // Multiplies blocks [block, end) into d, a chain from +0; the last one may be under way behind it.
  const auto leaf = [&](float(&d)[T::kValues], int end) {
    int accumulate = 0;
#pragma unroll 1
    do {
      reader.multiply(d, warpgroup * 64, accumulate);
      accumulate = 1;
    } while (++block < end);
  };

  TileWalk walk(task, ring.groups(task.groups.count), T::kColumns);
  if (walk.done()) return;
  auto following = walk.work();
#pragma unroll 1
  for (bool more = true; more;) {
    const auto work = following;
    block = task.first_block;
    const auto look_ahead = [&] {
      walk.next();
      more = !walk.done();
      if (more) following = walk.work();
    };
    if (work.row + warpgroup * 64 >= work.row_end) {  // no row for this warpgroup
#pragma unroll 1
      for (; block < task.last_block; ++block) reader.pass(warpgroup);
      look_ahead();
      continue;
    }
    const int row = work.row + warpgroup * 64 + warp * 16;
    ptx::forget(acc);
    ptx::forget(other);
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
    }
    boxes_are_free();
    if (task.gated)
      write_gated(task, y_map, acc, row, work.row_end, work.column / 2, own);
    else
      write_tile<T>(task, y_map, acc, row, work.row_end, work.column, own);
  }
  if (lane == 0) ptx::wait_stores_read<0>();
}

// The same for a tree of four or eight leaves, some of one block; a tile leaves while the next one begins. Nothing of it stands
// behind a condition, or the compiler would wait for every multiplication: a warpgroup without a row multiplies what lies there,
// and writes nothing.
template <class T>
__device__ void consume_tree(const GroupedTask& task, const CUtensorMap* y_map, const Ring<T>& ring, int warpgroup) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, first_row = warpgroup * 64;
  const uint32_t own = ring.own(warpgroup * 4 + warp), sums = own + lane * 16;
  float acc[T::kValues], other[T::kValues], third[T::kValues];
  Reader<T> reader(ring);
  int block = 0;
  // A leaf's first block is under way in d behind this, and all before it is complete.
  const auto begin = [&](float(&d)[T::kValues]) {
    reader.multiply(d, first_row, 0);
    ++block;
  };
  const auto go_on = [&](float(&d)[T::kValues], int leaf) {
    const int end = task.leaf_begin[leaf + 1];
#pragma unroll 1
    for (; block < end; ++block) reader.multiply(d, first_row, 1);
  };
  TileWalk walk(task, ring.groups(task.groups.count), T::kColumns);
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
    multiply_tree<T::kLeaves>(acc, other, third, sums, begin, go_on, [&] { reader.drain(); });
    const auto write = [&] {
      // What follows writes where other lanes of this warp may still read their sums, or boxes still leave.
      if constexpr (T::kSums)
        __syncwarp();
      else
        boxes_are_free();
      write_tile<T>(task, y_map, third, work.row + first_row + warp * 16, work.row_end, work.column, own);
    };
    if (!more) {
      write();
      break;
    }
    block = task.first_block;
    begin(acc);
    write();
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
    if constexpr (T::kTree)
      consume_tree<T>(task, &y_map, ring, warpgroup);
    else
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
  task.wide_y = task.y ? reinterpret_cast<uintptr_t>(task.y) % 16 == 0 && task.y_stride % 8 == 0
                       : reinterpret_cast<uintptr_t>(task.y_fp32) % 8 == 0 && task.y_stride % 2 == 0;
  task.boxes = task.y ? task.wide_y : reinterpret_cast<uintptr_t>(task.y_fp32) % 16 == 0 && task.y_stride % 4 == 0;
  task.column_tiles = (task.outputs + kColumns - 1) / kColumns;
  const CUtensorMap x_map = T::kGather ? CUtensorMap{} : tensor_map(device, task.x, task.rows, inputs, task.x_stride, kTileRows);
  const CUtensorMap y_map = task.boxes ? output_map(device, task, T::kNarrow || task.gated) : CUtensorMap{};
  launch(device,
         {.grid = static_cast<unsigned>(chip_of(device).multiprocessors),
          .block = kThreads,
          .shared = T::kShared + GroupTable::bytes(task.groups.count),
          .dependent = true},
         grouped_kernel<T>, x_map, y_map, task);
}

}  // namespace invar::cuda::tc::grouped
