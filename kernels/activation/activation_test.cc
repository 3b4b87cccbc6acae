#include "kernels/activation/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;

TEST(SiluMul, EveryGateValue_GivesTheReferenceBitsOnEverySchedule) {
  // All 65,536 gates, NaNs included, beside ups of every kind.
  constexpr int64_t kCount = 65536;
  for (const Kind kind : kAllKinds) {
    std::vector<Bf16> x(2 * kCount);
    const std::vector<Bf16> up = bf16_data(kCount, kind, 5);
    for (int64_t i = 0; i < kCount; ++i) x[i] = Bf16{static_cast<uint16_t>(i)}, x[kCount + i] = up[i];
    std::vector<Bf16> want(kCount);
    SiluMul problem{.rows = 1, .width = kCount, .x = x.data(), .x_stride = 2 * kCount, .y = want.data(), .y_stride = kCount};
    silu_mul_reference(problem);
    for (const DeviceOptions& options : devices()) {
      std::vector<Bf16> got(kCount);
      problem.y = got.data();
      silu_mul(Device(options), problem);
      EXPECT_TRUE(same_bits(got, want)) << describe(options);
    }
  }
}

TEST(SiluMul, AnyWidthAndStride_GivesTheReferenceBits) {
  for (const int64_t width : {1, 3, 8, 15, 16, 17, 31, 64, 100, 1536})
    for (const int64_t rows : {1, 2, 5, 33})
      for (const int64_t gap : {0, 3}) {
        const int64_t x_stride = 2 * width + gap, y_stride = width + gap;
        const std::vector<Bf16> x = bf16_data(rows * x_stride, Kind::kOrdinary, static_cast<uint64_t>(width * rows));
        std::vector<Bf16> want(rows * y_stride, Bf16{0xabcd});
        SiluMul problem{
            .rows = rows, .width = width, .x = x.data(), .x_stride = x_stride, .y = want.data(), .y_stride = y_stride};
        silu_mul_reference(problem);
        for (const DeviceOptions& options : devices()) {
          std::vector<Bf16> got(rows * y_stride, Bf16{0xabcd});
          problem.y = got.data();
          silu_mul(Device(options), problem);
          ASSERT_TRUE(same_bits(got, want)) << describe(options) << ", width " << width << ", rows " << rows;
        }
      }
}

TEST(SiluMul, IsCloseToDoublePrecision) {
  double worst = 0;
  for (float g = -40; g < 40; g += 0.0625f) {
    const Bf16 gate = numerics::bf(g), one = numerics::bf(1.0f);
    const double x = numerics::widen(gate), want = x / (1 + std::exp(-x));
    const double got = numerics::widen(numerics::silu_mul(gate, one));
    if (want != 0) worst = std::max(worst, std::abs(got - want) / std::abs(want));
  }
  EXPECT_LT(worst, 0x1.001p-8);  // one rounding to bf16 and a little
  EXPECT_GT(worst, 0x1p-9);      // the bound is near what happens, so it would notice a second rounding
}

TEST(SiluMul, LimitsAreExact) {
  const auto silu = [](uint16_t gate, uint16_t up) { return numerics::silu_mul(Bf16{gate}, Bf16{up}).bits; };
  EXPECT_EQ(silu(0x0000, 0x3f80), 0x0000);
  EXPECT_EQ(silu(0x8000, 0x3f80), 0x8000);  // -0 stays -0
  EXPECT_EQ(silu(0x42c8, 0x3f80), 0x42c8);  // 100
  EXPECT_EQ(silu(0x7f80, 0x3f80), 0x7f80);  // +inf
  EXPECT_EQ(silu(0xff80, 0x3f80), 0x7fff);  // -inf * 0
  EXPECT_EQ(silu(0xffc1, 0x3f80), 0x7fff);  // every NaN is the one NaN
}

TEST(ResidualAdd, GivesTheReferenceBits) {
  for (const int64_t count : {1, 7, 8, 9, 15, 16, 17, 100, 576, 4096, 100003})
    for (const Kind kind : kAllKinds) {
      const std::vector<Bf16> start = bf16_data(count, kind, 11), y = bf16_data(count, Kind::kWideExponents, 12);
      std::vector<Bf16> want = start;
      residual_add_reference(want.data(), y.data(), count);
      for (const DeviceOptions& options : devices()) {
        std::vector<Bf16> got = start;
        residual_add(Device(options), got.data(), y.data(), count);
        ASSERT_TRUE(same_bits(got, want)) << describe(options) << ", count " << count << ", kind " << static_cast<int>(kind);
        got = start;  // y may be x itself
        residual_add(Device(options), got.data(), got.data(), count);
        std::vector<Bf16> twice = start;
        residual_add_reference(twice.data(), twice.data(), count);
        ASSERT_TRUE(same_bits(got, twice)) << describe(options);
      }
    }
}

TEST(ResidualAdd, RoundsTiesToEven) {
  // 1 + 2^-8 lies half way between 1 and 1 + 2^-7; 1 + 2^-7 + 2^-8 half way between two, the upper one even.
  std::vector<Bf16> x = {numerics::bf(1.0f), numerics::bf(1.0f + 0x1p-7f), numerics::bf(-1.0f), Bf16{0x8000}, Bf16{0x0001}};
  const std::vector<Bf16> y = {numerics::bf(0x1p-8f), numerics::bf(0x1p-8f), numerics::bf(1.0f), Bf16{0x8000}, Bf16{0x8001}};
  const std::vector<Bf16> want = {numerics::bf(1.0f), numerics::bf(1.0f + 0x1p-6f), Bf16{0}, Bf16{0x8000}, Bf16{0}};
  for (const DeviceOptions& options : devices()) {
    std::vector<Bf16> got = x;
    residual_add(Device(options), got.data(), y.data(), 5);
    EXPECT_TRUE(same_bits(got, want)) << describe(options);
  }
}

}  // namespace
}  // namespace invar
