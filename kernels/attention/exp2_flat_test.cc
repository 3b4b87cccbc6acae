// The branch-free forms on the host, on a part of the floats; exp2_flat_cuda_test.cu takes all of them where there is a GPU.
#include "kernels/attention/cuda/exp2_flat.h"

#include <gtest/gtest.h>

#include <cmath>

namespace invar::cuda {
namespace {

void expect_equal(float x) {
  const uint32_t want = numerics::float_bits(numerics::exp2_fast(x));
  if (x <= kFastLimit) {
    ASSERT_EQ(numerics::float_bits(exp2_flat(x)), want) << x;
  }
  ASSERT_EQ(numerics::float_bits(exp2_any(x)), want) << x;
}

TEST(Exp2Flat, GivesTheBitsOfExp2Fast) {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 1021) {
    const float x = numerics::bits_float(static_cast<uint32_t>(bits));
    if (x == x) expect_equal(x);
  }
  // Around every half and whole number where the rounding, the flush or the overflow changes.
  for (float centre = -130.0f; centre <= 130.0f; centre += 0.5f) {
    float x = centre;
    for (int i = 0; i < 40; ++i) x = std::nextafter(x, -200.0f);
    for (int i = 0; i < 80; ++i, x = std::nextafter(x, 200.0f)) expect_equal(x);
  }
  EXPECT_TRUE(std::isnan(exp2_any(numerics::bits_float(0x7fffffffu))));
}

TEST(Exp2Flat, TheLimitIsNeeded) {
  EXPECT_NE(numerics::float_bits(exp2_flat(65.0f)), numerics::float_bits(numerics::exp2_fast(65.0f)));
}

}  // namespace
}  // namespace invar::cuda
