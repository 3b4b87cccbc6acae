// Order by expert without atomics, so that nobody's turn decides: a block has an expert, passes all tokens twice and counts.
// First how many rows lie before the expert's, then which of its own each is.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/moe/cuda/expert_order.h"

namespace invar::cuda {

namespace {

constexpr int kMostThreads = 1024;

__global__ void __launch_bounds__(kMostThreads) order_rows(const __grid_constant__ ExpertOrder p) {
  __shared__ int32_t of_warp[32];
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int expert = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int64_t entries = p.rows * p.top_k;

  int32_t before = 0;  // entries of lower experts
  for (int64_t i = threadIdx.x; i < entries; i += blockDim.x) before += p.ids[i] < expert;
  before = __reduce_add_sync(0xffffffffu, before);
  if (lane == 0) of_warp[warp] = before;
  __syncthreads();
  int64_t place = 0;
  for (int w = 0; w < warps; ++w) place += of_warp[w];
  if (threadIdx.x == 0) p.offsets[expert] = place;

  for (int64_t first = 0; first < p.rows; first += blockDim.x) {
    const int64_t token = first + threadIdx.x;
    int64_t entry = -1;  // the token's one for this expert
    if (token < p.rows)
      for (int64_t i = token * p.top_k; i < (token + 1) * p.top_k; ++i)
        if (p.ids[i] == expert) entry = i;
    const unsigned those = __ballot_sync(0xffffffffu, entry >= 0);
    __syncthreads();  // the counts before these have been read
    if (lane == 0) of_warp[warp] = __popc(those);
    __syncthreads();
    int32_t lower = 0, all = 0;
    for (int w = 0; w < warps; ++w) {
      if (w == warp) lower = all;
      all += of_warp[w];
    }
    if (entry >= 0) {
      const int64_t row = place + lower + __popc(those & ((1u << lane) - 1));
      p.row_of[entry] = row;
      p.token_of[row] = static_cast<int32_t>(token);
    }
    place += all;
  }
  if (threadIdx.x == 0 && expert == p.experts - 1) p.offsets[p.experts] = place;
}

}  // namespace

void order_by_expert(const Device& device, const ExpertOrder& p) {
  const int64_t threads = std::clamp<int64_t>((p.rows + 31) / 32 * 32, 32, kMostThreads);
  launch(device, {.grid = static_cast<unsigned>(p.experts), .block = static_cast<unsigned>(threads), .dependent = true},
         order_rows, p);
}

}  // namespace invar::cuda
