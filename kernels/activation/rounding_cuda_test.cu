// Device instructions that stand for functions of numerics.h: equal for every input there is.
#include <gtest/gtest.h>

#include "kernels/activation/cuda/silu_mul.cuh"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/cuda/pieces.cuh"

namespace invar::cuda {
namespace {

using RoundingCuda = CudaTest;

enum Question { kNarrow, kReciprocal, kSum, kProduct, kMean, kControl, kQuestions };

// differ[q]: of the 2^32 floats (kProduct: pairs of bf16), how many give other bits by the instruction; example[q]: one of them.
__global__ void compare(unsigned long long* differ, uint32_t* example) {
  for (uint64_t u = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; u < uint64_t{1} << 32;
       u += uint64_t{gridDim.x} * blockDim.x) {
    const auto bits = static_cast<uint32_t>(u);
    const float x = numerics::bits_float(bits);
    const uint32_t want = numerics::bf(x).bits;
    const float reciprocal = __frcp_rn(x), quotient = numerics::div(1.0f, x);
    const numerics::Bf16 a{static_cast<uint16_t>(bits >> 16)}, b{static_cast<uint16_t>(bits)};
    const uint32_t product = numerics::bf(numerics::mul(numerics::widen(a), numerics::widen(b))).bits;
    const bool wrong[kQuestions] = {
        narrow_pair(x, x) != (want | want << 16),
        numerics::canonical_bits(reciprocal) != numerics::canonical_bits(quotient),
        x == x && numerics::float_bits(one_plus_exp2(x)) != numerics::float_bits(numerics::add(1.0f, numerics::exp2(x))),
        multiply_pair(bits, bits >> 16 | bits << 16) != (product | product << 16),
        numerics::canonical_bits(numerics::mul(x, 0x1p-7f)) != numerics::canonical_bits(numerics::div(x, 0x1p7f)),
        (bits >> 16) != want};
    for (int q = 0; q < kQuestions; ++q) {
      if (!wrong[q]) continue;
      atomicAdd(differ + q, 1ull);
      example[q] = bits;
    }
  }
}

TEST_F(RoundingCuda, AreThoseOfTheContractForAllFloats) {
  const DeviceArray<unsigned long long> differ(device(), kQuestions);
  const DeviceArray<uint32_t> example(device(), kQuestions);
  launch(device(), {.grid = 132 * 8, .block = 256}, compare, differ.data(), example.data());
  const auto count = differ.to_host(device());
  const auto bits = example.to_host(device());
  EXPECT_EQ(count[kNarrow], 0u) << "for example " << std::hex << bits[kNarrow];
  EXPECT_EQ(count[kReciprocal], 0u) << "for example " << std::hex << bits[kReciprocal];
  EXPECT_EQ(count[kSum], 0u) << "for example " << std::hex << bits[kSum];
  EXPECT_EQ(count[kProduct], 0u) << "for example " << std::hex << bits[kProduct];
  EXPECT_EQ(count[kMean], 0u) << "for example " << std::hex << bits[kMean];
  EXPECT_GT(count[kControl], 1u << 30) << "truncation must be told from rounding";
}

}  // namespace
}  // namespace invar::cuda
