#include "kernels/rope/fixed_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/numerics.h"

namespace invar::fixed_math {
namespace {

// The yardstick is the long double libm of this machine: wider than double, so its own error does not count.
static_assert(std::numeric_limits<long double>::digits >= 64);

double relative_error(double got, long double want) {
  if (want == 0) return got == 0 ? 0 : 1;
  return static_cast<double>(std::abs((static_cast<long double>(got) - want) / want));
}

uint64_t random_bits(uint64_t i) { return numerics::mix64(i); }
double unit(uint64_t i) { return static_cast<double>(random_bits(i) >> 11) * 0x1p-53; }

TEST(FixedMath, SinCos_MatchLibm) {
  double worst = 0;
  const auto look = [&](float x) {
    const SinCos got = sin_cos(x);
    worst = std::max({worst, relative_error(got.sine, std::sin(static_cast<long double>(x))),
                      relative_error(got.cosine, std::cos(static_cast<long double>(x)))});
  };
  for (uint64_t i = 0; i < 400000; ++i) look(static_cast<float>(unit(i) * std::exp2(static_cast<double>(i % 60) - 30)));
  // Floats near multiples of pi/2: what the reduction must not lose.
  for (int n = 1; n < 200000; ++n) {
    const auto x = static_cast<float>(n * 1.57079632679489661923);
    look(x);
    look(std::nextafter(x, 0.0f));
    look(std::nextafter(x, 1e30f));
  }
  // The floats of their binades nearest to a multiple of pi/2, found by trying all: here the third word of pi/2 matters.
  for (const float x : {0x1.4ac55cp+22f, 0x1.e768f6p+24f, 0x1.4665d2p+25f, 0x1.4665d2p+27f, 0x1.08ecc2p+28f, 0x1.27a94ap+29f,
                        0x1.1ffa28p+31f, 0x1.b7a65ep+32f, 0x1.47d0fep+34f, 0x1.47d0fep+39f, 0x1.628d4cp+40f, 0x1.628d4cp+44f,
                        0x1.f0eaeep+47f, 0x1.705312p+48f, 0x1.705312p+49f})
    look(x);
  EXPECT_LT(worst, 4e-16);
  EXPECT_GT(worst, 1e-17);  // it is a double routine: no error at all would mean that nothing was compared
}

TEST(FixedMath, SinCos_OfZeroAndOfNegatives) {
  EXPECT_EQ(sin_cos(0).sine, 0);
  EXPECT_EQ(sin_cos(0).cosine, 1);
  for (uint64_t i = 0; i < 1000; ++i) {
    const double x = unit(i) * 1000;
    EXPECT_EQ(sin_cos(-x).sine, -sin_cos(x).sine);
    EXPECT_EQ(sin_cos(-x).cosine, sin_cos(x).cosine);
  }
}

TEST(FixedMath, Power_MatchesLibm) {
  double worst = 0;
  for (const double base : {1.5, 2.0, 10.0, 100.0, 1e4, 1.5e5, 5e5, 1e6, 8e6, 1e7, 1e11, 1e30})
    for (const int dim : {2, 6, 16, 32, 64, 80, 96, 128, 192, 256, 512})
      for (int i = 0; i < dim; i += 2) {
        const double got = power(base, quotient({-static_cast<double>(i), 0}, {static_cast<double>(dim), 0}));
        worst =
            std::max(worst, relative_error(got, std::pow(static_cast<long double>(base), -static_cast<long double>(i) / dim)));
      }
  EXPECT_LT(worst, 1.2e-16);  // half an ulp is at most 1.11e-16
  EXPECT_GT(worst, 1e-17);
}

TEST(FixedMath, Power_IsExactWhereTheResultIs) {
  EXPECT_EQ(power(16, {0.25, 0}), 2);
  EXPECT_EQ(power(2, {-100, 0}), 0x1p-100);
  EXPECT_EQ(power(1e4, {0, 0}), 1);
  EXPECT_EQ(power(1e4, {-0.5, 0}), 0.01);
  EXPECT_EQ(power(1e4, {-0.25, 0}), 0.1);
}

TEST(FixedMath, Logarithm_MatchesLibm) {
  double worst = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    const double x = (0.5 + unit(i)) * std::exp2(static_cast<double>(i % 200) - 100);
    worst = std::max({worst, relative_error(natural_log(x).hi, std::log(static_cast<long double>(x))),
                      relative_error(log2(x).hi, std::log2(static_cast<long double>(x)))});
  }
  EXPECT_LT(worst, 1.2e-16);
  EXPECT_EQ(natural_log(1).hi, 0);
  EXPECT_EQ(log2(0x1p77).hi, 77);
}

TEST(FixedMath, Exp2_MatchesLibm) {
  double worst = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    const double y = (unit(i) - 0.5) * 1900;
    worst = std::max(worst, relative_error(exp2({y, 0}), std::exp2(static_cast<long double>(y))));
  }
  EXPECT_LT(worst, 1.2e-16);
  EXPECT_EQ(exp2({0, 0}), 1);
}

}  // namespace
}  // namespace invar::fixed_math
