// Every float through the branch-free form, on the machine that runs it.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/attention/cuda/exp2_flat.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"

namespace invar {
namespace {

enum class Form { kFlat, kUnclamped, kAny };

// Counts the bit patterns of x <= limit for which the form differs from exp2_fast, and keeps one of them.
__global__ void compare_kernel(float limit, Form form, unsigned long long* count, uint32_t* example) {
  const uint64_t stride = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t bits = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; bits < (uint64_t{1} << 32); bits += stride) {
    const float x = numerics::bits_float(static_cast<uint32_t>(bits));
    if (!(x <= limit)) continue;
    const float got = form == Form::kFlat  ? cuda::exp2_flat(x)
                      : form == Form::kAny ? cuda::exp2_any(x)
                                           : cuda::exp2_lower(cuda::exp2_shifted(x));
    if (numerics::float_bits(got) == numerics::float_bits(numerics::exp2_fast(x))) continue;
    atomicAdd(count, 1ull);
    *example = static_cast<uint32_t>(bits);
  }
}

using Exp2FlatCuda = CudaTest;

unsigned long long differing(const Device& device, float limit, Form form, float* example) {
  const DeviceArray<unsigned long long> count(device, 1);
  const DeviceArray<uint32_t> where(device, 1);
  cuda::launch(device, {.grid = 1024, .block = 256}, compare_kernel, limit, form, count.data(), where.data());
  *example = numerics::bits_float(where.to_host(device)[0]);
  return count.to_host(device)[0];
}

TEST_F(Exp2FlatCuda, EveryFloatUpToTheLimitGivesTheBitsOfExp2Fast) {
  float example = 0;
  EXPECT_EQ(differing(device(), cuda::kFastLimit, Form::kFlat, &example), 0u) << "one is " << example;
}

TEST_F(Exp2FlatCuda, TheFormForEveryFloatGivesTheBitsOfExp2Fast) {
  float example = 0;
  EXPECT_EQ(differing(device(), std::numeric_limits<float>::infinity(), Form::kAny, &example), 0u) << "one is " << example;
}

TEST_F(Exp2FlatCuda, TheClampAndTheLimitAreNeeded) {
  float example = 0;
  EXPECT_GT(differing(device(), cuda::kFastLimit, Form::kUnclamped, &example), 0u);
  EXPECT_GT(differing(device(), 2 * cuda::kFastLimit + 1, Form::kFlat, &example), 0u);
}

}  // namespace
}  // namespace invar
