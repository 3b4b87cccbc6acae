#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/linear_cuda_bench_kernels.h"

namespace invar::bench {
namespace {

__global__ void stamp(uint64_t* stamps) {
  uint32_t multiprocessor;
  uint64_t nanoseconds;
  asm volatile("mov.u32 %0, %%smid;\nmov.u64 %1, %%globaltimer;" : "=r"(multiprocessor), "=l"(nanoseconds));
  stamps[2 * multiprocessor] = static_cast<uint64_t>(clock64());
  stamps[2 * multiprocessor + 1] = nanoseconds;
}

}  // namespace

void stamp_clocks(const Device& device, uint64_t* stamps) {
  constexpr size_t kMostOfABlock = 200 << 10;  // a block a multiprocessor
  cuda::launch(device, {.grid = static_cast<unsigned>(device.cuda().multiprocessors), .shared = kMostOfABlock}, stamp, stamps);
}

}  // namespace invar::bench
