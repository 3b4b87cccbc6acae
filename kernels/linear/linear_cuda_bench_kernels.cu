#include "kernels/device/cuda/launch.cuh"
#include "kernels/linear/linear_cuda_bench_kernels.h"

namespace invar::bench {
namespace {

__global__ void fill(Bf16* values, int64_t count, uint64_t seed, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    const uint64_t r = numerics::mix64(numerics::mix64(seed) ^ static_cast<uint64_t>(i));
    const float sum = static_cast<float>(r & 0xffff) + static_cast<float>(r >> 16 & 0xffff) +
                      static_cast<float>(r >> 32 & 0xffff) + static_cast<float>(r >> 48);
    values[i] = numerics::bf((sum / 65536.0f - 2.0f) * scale);
  }
}

__global__ void read(const uint4* data, int64_t count, uint32_t* sink) {
  constexpr int kAhead = 8;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  uint32_t any = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride * kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      if (i + j * stride < count) {
        const uint4 v = __ldcs(data + i + j * stride);
        any ^= v.x ^ v.y ^ v.z ^ v.w;
      }
  }
  if (any == 0x12345) *sink = any;
}

}  // namespace

void fill_values(const Device& device, Bf16* values, int64_t count, uint64_t seed, float scale) {
  cuda::launch(device, {.grid = 1056, .block = 256}, fill, values, count, seed, scale);
}

void read_plainly(const Device& device, const std::byte* data, size_t bytes, int blocks, std::byte* sink) {
  cuda::launch(device, {.grid = static_cast<unsigned>(blocks), .block = 512}, read, reinterpret_cast<const uint4*>(data),
               static_cast<int64_t>(bytes / sizeof(uint4)), reinterpret_cast<uint32_t*>(sink));
}

}  // namespace invar::bench
