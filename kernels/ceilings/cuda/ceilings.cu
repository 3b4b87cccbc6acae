#include <algorithm>

#include "kernels/ceilings/cuda/blas_product.h"
#include "kernels/ceilings/cuda/ceilings.h"
#include "kernels/ceilings/cuda/stopwatch.h"
#include "kernels/device/cuda/launch.cuh"

namespace invar::ceilings {
namespace {

constexpr int kReadThreads = 512;

__global__ void read_kernel(const uint4* from, int64_t pieces, uint4* nowhere) {
  constexpr int kAhead = 8;
  uint4 mixed{0, 0, 0, 0};
  const int64_t stride = int64_t{gridDim.x} * kReadThreads;
  for (int64_t i = int64_t{blockIdx.x} * kReadThreads + threadIdx.x; i < pieces; i += kAhead * stride)
#pragma unroll
    for (int j = 0; j < kAhead; ++j)
      if (i + j * stride < pieces) {
        const uint4 v = __ldcs(from + i + j * stride);
        mixed = {mixed.x ^ v.x, mixed.y ^ v.y, mixed.z ^ v.z, mixed.w ^ v.w};
      }
  if (mixed.x == 0x9e3779b9u && mixed.y == 0x85ebca6bu) *nowhere = mixed;  // keeps the loads alive, hardly ever taken
}

__global__ void fill_kernel(Bf16* values, int64_t count, uint64_t seed, float scale) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    const uint64_t r = numerics::mix64(numerics::mix64(seed) ^ static_cast<uint64_t>(i));
    const float sum = static_cast<float>(r & 0xffff) + static_cast<float>(r >> 16 & 0xffff) +
                      static_cast<float>(r >> 32 & 0xffff) + static_cast<float>(r >> 48);
    values[i] = numerics::bf((sum / 65536.0f - 2.0f) * scale);
  }
}

}  // namespace

void fill_values(const Device& device, Bf16* values, int64_t count, uint64_t seed, float scale) {
  cuda::launch(device, {.grid = 1056, .block = 256}, fill_kernel, values, count, seed, scale);
}

double cuda_read_rate(const Device& device) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  const Buffer area(device, kBytes), nowhere(device, sizeof(uint4));
  const Stopwatch watch(device);
  double best = 1e30;
  for (const int blocks : {2, 4, 8})  // a multiprocessor
    best = std::min(
        best, watch.in_graph(
                  [&](int) {
                    cuda::launch(device,
                                 {.grid = static_cast<unsigned>(device.cuda().multiprocessors * blocks), .block = kReadThreads},
                                 read_kernel, area.as<const uint4>(), kBytes / 16, nowhere.as<uint4>());
                  },
                  1));
  return kBytes / best * 1e6;
}

MatrixRates cuda_matrix_rates(const Device& device) {
  constexpr int64_t kSize = 8192;
  constexpr double kOperations = 2.0 * kSize * kSize * kSize, kHeld = 250'000;  // us
  const Buffer a(device, kSize * kSize * 2), b(device, kSize * kSize * 2), c(device, kSize * kSize * 2);
  fill_values(device, a.as<Bf16>(), kSize * kSize, 1, 1.0f);
  fill_values(device, b.as<Bf16>(), kSize * kSize, 2, 1.0f);
  const BlasProduct product(device, {.rows = kSize, .outputs = kSize, .inputs = kSize});
  const Stopwatch watch(device);
  const auto run = [&](size_t algorithm, int) { return product.run(algorithm, a.data(), b.data(), c.data()); };
  const FastestProposal fastest = fastest_proposal(product, watch, 1, run);
  const int count = std::max(1, static_cast<int>(kHeld / fastest.us));
  const double held = watch.in_graph([&](int turn) { run(fastest.algorithm, turn); }, count, 3);
  return {kOperations / fastest.us * 1e6, kOperations / held * 1e6};
}

}  // namespace invar::ceilings
