// Order by expert without atomics, so that nobody's turn decides: a block has an expert and looks at all tokens. It counts the
// rows that lie before the expert's, and a scan over its threads, each with neighbouring tokens, says where each of its own lies.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/moe/cuda/expert_order.h"

namespace invar::cuda {

namespace {

constexpr int kMostThreads = 1024;
constexpr int kThreadTokens = 32;  // of a thread in one round: a bit each

struct Found {
  int32_t before = 0;   // entries of lower experts
  uint32_t tokens = 0;  // bit i: token i has a row for this one
};

// Tokens [begin, end), at most kThreadTokens.
__device__ Found find(const ExpertOrder& p, int expert, int64_t begin, int64_t end) {
  Found found;
  const auto look = [&](int32_t id, int64_t entry) {
    found.before += id < expert;
    if (id == expert) found.tokens |= 1u << (entry / p.top_k - begin);
  };
  int64_t entry = begin * p.top_k;
  const int64_t last = end * p.top_k;
  if (entry % 4 == 0 && reinterpret_cast<uintptr_t>(p.ids) % 16 == 0) {
#pragma unroll 8
    for (; entry + 4 <= last; entry += 4) {
      const int4 ids = *reinterpret_cast<const int4*>(p.ids + entry);
      look(ids.x, entry);
      look(ids.y, entry + 1);
      look(ids.z, entry + 2);
      look(ids.w, entry + 3);
    }
  }
  for (; entry < last; ++entry) look(p.ids[entry], entry);
  return found;
}

__global__ void __launch_bounds__(kMostThreads) order_rows(const __grid_constant__ ExpertOrder p) {
  __shared__ int32_t before_of[32], rows_of[32];  // of a warp
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int expert = blockIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int64_t most = int64_t{blockDim.x} * kThreadTokens;
  const bool one_round = p.rows <= most;
  const int64_t each = one_round ? (p.rows + blockDim.x - 1) / blockDim.x : kThreadTokens;
  const auto look = [&](int64_t round) {
    const int64_t begin = std::min(p.rows, round + threadIdx.x * each);
    return find(p, expert, begin, std::min(p.rows, begin + each));
  };
  Found found;
  for (int64_t round = 0; round < p.rows; round += most) {
    const int32_t before = found.before;
    found = look(round);
    found.before += before;
  }
  const int32_t before = __reduce_add_sync(0xffffffffu, found.before);
  if (lane == 0) before_of[warp] = before;
  __syncthreads();
  int64_t place = 0;
  for (int w = 0; w < warps; ++w) place += before_of[w];
  if (threadIdx.x == 0) p.offsets[expert] = place;

  for (int64_t round = 0; round < p.rows; round += most) {
    if (!one_round) found = look(round);
    const int32_t own = __popc(found.tokens);
    int32_t up_to = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int32_t lower = __shfl_up_sync(0xffffffffu, up_to, distance);
      if (lane >= distance) up_to += lower;
    }
    __syncthreads();  // the counts of the round before have been read
    if (lane == 31) rows_of[warp] = up_to;
    __syncthreads();
    int64_t row = place + up_to - own;
    for (int w = 0; w < warps; ++w) {
      if (w < warp) row += rows_of[w];
      place += rows_of[w];
    }
    for (uint32_t left = found.tokens; left; left &= left - 1, ++row) {
      const int64_t token = round + threadIdx.x * each + __ffs(static_cast<int>(left)) - 1;
      int64_t entry = token * p.top_k;
      while (p.ids[entry] != expert) ++entry;
      p.row_of[entry] = row;
      p.token_of[row] = static_cast<int32_t>(token);
    }
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
