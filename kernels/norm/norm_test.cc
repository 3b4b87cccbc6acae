#include "kernels/norm/norm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/lanes/test_rows.h"
#include "kernels/norm/schedules.h"

namespace invar {
namespace {

using namespace test_rows;

constexpr int64_t kWidths[] = {1,    2,    7,    8,    9,    15,   16,   17,   31,   33,   63,   64,   65,
                               96,   127,  128,  129,  200,  511,  512,  513,  576,  768,  1000, 1007, 1023,
                               1024, 1025, 1039, 1087, 1088, 1536, 2047, 2048, 2049, 3000, 4096, 4097, 5120};

struct Case {
  int64_t rows, groups, width, x_gap, y_gap;
  Kind kind;
  uint64_t seed;
};

// The whole y buffer, gaps between rows included: nothing may be written there.
std::vector<Bf16> run(const Case& c, const DeviceOptions* options, bool in_place) {
  const int64_t span = c.groups * c.width, x_stride = span + c.x_gap, y_stride = in_place ? x_stride : span + c.y_gap;
  std::vector<Bf16> x = bf16_data(c.rows * x_stride, c.kind, c.seed);
  const std::vector<Bf16> weight =
      bf16_data(c.width, c.kind == Kind::kOrdinary ? Kind::kSpread : Kind::kWideExponents, c.seed + 1);
  std::vector<Bf16> y(c.rows * y_stride, Bf16{0xabcd});
  const RmsNorm problem{.rows = c.rows,
                        .groups = c.groups,
                        .width = c.width,
                        .x = x.data(),
                        .x_stride = x_stride,
                        .weight = weight.data(),
                        .epsilon = 1e-5f,
                        .y = in_place ? x.data() : y.data(),
                        .y_stride = y_stride};
  if (options)
    rms_norm(Device(*options), problem);
  else
    rms_norm_reference(problem);
  return in_place ? x : y;
}

TEST(Norm, EverySchedule_GivesTheReferenceBits) {
  uint64_t seed = 0;
  for (const int64_t width : kWidths)
    for (const Kind kind : kAllKinds) {
      ++seed;
      const Case c{static_cast<int64_t>(1 + seed % 4),
                   static_cast<int64_t>(1 + seed % 3),
                   width,
                   static_cast<int64_t>(seed % 5),
                   static_cast<int64_t>(seed % 7),
                   kind,
                   seed};
      for (const bool in_place : {false, true}) {
        const std::vector<Bf16> want = run(c, nullptr, in_place);
        for (const DeviceOptions& options : devices())
          ASSERT_TRUE(same_bits(run(c, &options, in_place), want))
              << describe(options) << ", width " << width << ", kind " << static_cast<int>(kind) << ", in place " << in_place;
      }
    }
}

TEST(Norm, ManyRowsOverThreads_GiveTheReferenceBits) {
  const Case c{301, 2, 320, 3, 1, Kind::kOrdinary, 99};
  const std::vector<Bf16> want = run(c, nullptr, false);
  for (DeviceOptions options : devices())
    for (const int threads : {1, 2, 7}) {
      options.threads = threads;
      EXPECT_TRUE(same_bits(run(c, &options, false), want)) << describe(options);
    }
}

TEST(Norm, ARow_HasTheSameBitsAnywhereInAnyBatch) {
  constexpr int64_t kWidth = 576, kRows = 40;
  const std::vector<Bf16> x = bf16_data(kRows * kWidth, Kind::kWideExponents, 7), weight = bf16_data(kWidth, Kind::kOrdinary, 8);
  for (const DeviceOptions& options : devices()) {
    const Device device(options);
    const auto norm = [&](const Bf16* first, int64_t rows) {
      std::vector<Bf16> y(rows * kWidth);
      rms_norm(device, {.rows = rows,
                        .width = kWidth,
                        .x = first,
                        .x_stride = kWidth,
                        .weight = weight.data(),
                        .epsilon = 1e-6f,
                        .y = y.data(),
                        .y_stride = kWidth});
      return y;
    };
    const std::vector<Bf16> all = norm(x.data(), kRows);
    for (const int64_t row : {0, 1, 17, 39})
      EXPECT_TRUE(same_bits(norm(x.data() + row * kWidth, 1),
                            std::vector<Bf16>(all.begin() + row * kWidth, all.begin() + (row + 1) * kWidth)));
  }
}

TEST(Norm, TheSumItself_HasTheReferenceBits) {
  for (const int64_t width : kWidths)
    for (const Kind kind : kFiniteKinds)
      for (uint64_t seed = 0; seed < (kind == Kind::kSpread ? 20 : 2); ++seed) {
        const std::vector<Bf16> x = bf16_data(width, kind, seed);
        const uint32_t want = numerics::float_bits(sum_of_squares_reference(x.data(), width));
        if (detect_isa() >= Isa::kAvx2) {
          ASSERT_EQ(numerics::float_bits(norm_schedule::sum_of_squares_avx2(x.data(), width)), want) << width;
        }
        if (detect_isa() >= Isa::kAvx512) {
          ASSERT_EQ(numerics::float_bits(norm_schedule::sum_of_squares_avx512(x.data(), width)), want) << width;
        }
      }
}

// The clause read literally: 1024 lanes that all exist, empty ones +0, every stride taken.
float padded_sum_of_squares(const std::vector<Bf16>& x) {
  std::vector<float> lane(1024, 0.0f);
  for (size_t k = 0; k < x.size(); ++k) lane[k % 1024] = std::fma(numerics::widen(x[k]), numerics::widen(x[k]), lane[k % 1024]);
  for (int stride = 512; stride > 0; stride /= 2)
    for (int j = 0; j < stride; ++j) lane[j] += lane[j + stride];
  return lane[0];
}

TEST(Norm, SkippingEmptyLanes_ChangesNoBit) {
  for (const int64_t width : kWidths)
    for (const Kind kind : kFiniteKinds) {
      const std::vector<Bf16> x = bf16_data(width, kind, static_cast<uint64_t>(width));
      EXPECT_EQ(numerics::float_bits(sum_of_squares_reference(x.data(), width)), numerics::float_bits(padded_sum_of_squares(x)));
    }
}

// Control arm: other orders of the same sum must be told apart by this data, or the tests above prove nothing.
TEST(Norm, OtherOrders_Differ) {
  int sequential = 0, neighbours = 0, lanes_512 = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<Bf16> x = bf16_data(4096, Kind::kSpread, seed);
    const uint32_t want = numerics::float_bits(sum_of_squares_reference(x.data(), 4096));
    float chain = 0;
    std::vector<float> lane(1024, 0.0f), few(512, 0.0f);
    for (size_t k = 0; k < x.size(); ++k) {
      const float v = numerics::widen(x[k]);
      chain = std::fma(v, v, chain);
      lane[k % 1024] = std::fma(v, v, lane[k % 1024]);
      few[k % 512] = std::fma(v, v, few[k % 512]);
    }
    for (size_t step = 1; step < 1024; step *= 2)
      for (size_t j = 0; j < 1024; j += 2 * step) lane[j] += lane[j + step];
    for (size_t stride = 256; stride > 0; stride /= 2)
      for (size_t j = 0; j < stride; ++j) few[j] += few[j + stride];
    sequential += numerics::float_bits(chain) != want;
    neighbours += numerics::float_bits(lane[0]) != want;
    lanes_512 += numerics::float_bits(few[0]) != want;
  }
  EXPECT_GT(sequential, 100);
  EXPECT_GT(neighbours, 20);
  EXPECT_GT(lanes_512, 20);
}

TEST(Norm, IsCloseToDoublePrecision) {
  for (const int64_t width : {64, 576, 4096}) {
    const std::vector<Bf16> x = bf16_data(width, Kind::kOrdinary, 3), weight = bf16_data(width, Kind::kOrdinary, 4);
    std::vector<Bf16> y(width);
    rms_norm(Device({}), {.rows = 1,
                          .width = width,
                          .x = x.data(),
                          .x_stride = width,
                          .weight = weight.data(),
                          .epsilon = 1e-5f,
                          .y = y.data(),
                          .y_stride = width});
    double sum = 0;
    for (const Bf16 v : x) sum += double{numerics::widen(v)} * numerics::widen(v);
    const double r = 1 / std::sqrt(sum / static_cast<double>(width) + 1e-5);
    for (int64_t k = 0; k < width; ++k) {
      const double want = numerics::widen(x[k]) * r * numerics::widen(weight[k]);
      // Two bf16 roundings of at most 2^-8 each, and fp32 noise.
      EXPECT_NEAR(numerics::widen(y[k]), want, std::abs(want) * 0x1.02p-7 + 1e-30) << "element " << k << " of " << width;
    }
  }
}

TEST(Norm, RowsOfZeros_AreScaledByEpsilonAlone) {
  std::vector<Bf16> x(100, Bf16{0x8000}), weight(100, Bf16{0x3f80}), y(100);
  for (const DeviceOptions& options : devices()) {
    rms_norm(Device(options), {.rows = 1,
                               .width = 100,
                               .x = x.data(),
                               .x_stride = 100,
                               .weight = weight.data(),
                               .epsilon = 1e-6f,
                               .y = y.data(),
                               .y_stride = 100});
    EXPECT_TRUE(same_bits(y, x));  // -0 stays -0
    rms_norm(Device(options), {.rows = 1,
                               .width = 100,
                               .x = x.data(),
                               .x_stride = 100,
                               .weight = weight.data(),
                               .epsilon = 0,
                               .y = y.data(),
                               .y_stride = 100});
    EXPECT_TRUE(same_bits(y, std::vector<Bf16>(100, Bf16{0x7fff})));  // 0 * inf: the one NaN
  }
}

TEST(RowSum, FollowsTheLanes) {
  EXPECT_EQ(numerics::float_bits(row_sum_reference(nullptr, 0)), 0u);
  const float minus_zero = -0.0f;
  EXPECT_EQ(numerics::float_bits(row_sum_reference(&minus_zero, 1)), 0x80000000u);  // no +0 is added anywhere
  // Lane 0 meets lane 2 before lane 1: 2^30 - 2^30 first, so nothing of the small ones is lost.
  const float strided[4] = {0x1p30f, 1.0f, -0x1p30f, 0x1p-20f};
  EXPECT_EQ(row_sum_reference(strided, 4), 1.0f + 0x1p-20f);
  const float three[3] = {1.0f, 0x1p-24f, 0x1p-24f};  // (1 + 2^-24) ties to even, twice
  EXPECT_EQ(row_sum_reference(three, 3), 1.0f);
  const float other[3] = {0x1p-24f, 1.0f, 0x1p-24f};  // 2^-23 + 1
  EXPECT_EQ(row_sum_reference(other, 3), 1.0f + 0x1p-23f);
  // Element 1024 joins lane 0 before any halving.
  std::vector<float> wide(1025, 0.0f);
  wide[0] = 0x1p30f, wide[512] = 1.0f, wide[1024] = -0x1p30f;
  EXPECT_EQ(row_sum_reference(wide.data(), 1025), 1.0f);
}

}  // namespace
}  // namespace invar
