// Ragged groups of rows, each with its own weights: which tile belongs to which group, found on the device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda::tc {

// All in device memory. Rows of group g are [offsets[g], offsets[g + 1]).
struct Groups {
  const std::byte* const* weights = nullptr;
  const int64_t* offsets = nullptr;
  int count = 0;
};

// Not through the first-level cache: a kernel that begins early may not find what a finished one wrote there.
__device__ inline int group_begin(const Groups& groups, int group) { return static_cast<int>(__ldcg(groups.offsets + group)); }

inline size_t group_tiles_bytes(int groups) { return groups ? (static_cast<size_t>(groups) + 1) * sizeof(int) : 0; }

// tiles[g], shared memory: tiles of the groups before g; tiles[count]: of all. A group has `outputs` tiles for each `rows` rows
// begun. By one warp of the block; a barrier must follow.
__device__ inline void count_group_tiles(const Groups& groups, int rows, int outputs, uint32_t tiles) {
  if (threadIdx.x >= 32) return;
  const int lane = threadIdx.x;
  int before = 0;
  for (int first = 0; first < groups.count; first += 32) {
    int count = 0;
    if (first + lane < groups.count) {
      const int held = group_begin(groups, first + lane + 1) - group_begin(groups, first + lane);
      count = (held + rows - 1) / rows * outputs;
    }
    int sum = count;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(0xffffffff, sum, distance);
      if (lane >= distance) sum += other;
    }
    if (first + lane < groups.count) ptx::store_shared_int(tiles + (first + lane) * 4, before + sum - count);
    before += __shfl_sync(0xffffffff, sum, 31);
  }
  if (lane == 0) ptx::store_shared_int(tiles + groups.count * 4, before);
}
__device__ inline int first_tile_of_group(uint32_t tiles, int group) { return ptx::load_shared_int(tiles + group * 4); }
// The last group that begins at `tile` or before it and is not empty.
__device__ inline int group_of_tile(uint32_t tiles, int groups, int tile) {
  int low = 0, high = groups;  // tiles[low] <= tile < tiles[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (first_tile_of_group(tiles, middle) <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace invar::cuda::tc
