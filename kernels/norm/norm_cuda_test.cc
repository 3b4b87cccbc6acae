// RMSNorm on a GPU against the reference, bit for bit, and the plans that lay it over blocks.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/norm/norm.h"
#include "kernels/norm/residual_norm.h"

namespace invar {
namespace {

using namespace test_rows;
using cuda::NormPlan;
using cuda::plan_norm;
using NormCuda = CudaTest;

struct Case {
  int64_t rows, groups, width, x_gap, y_gap;
  Kind kind;
  uint64_t seed;
};

// The whole y buffer, gaps between rows included: nothing may be written there. `device` null: the reference.
std::vector<Bf16> run(const Case& c, const Device* device, bool in_place) {
  const int64_t span = c.groups * c.width, x_stride = span + c.x_gap, y_stride = in_place ? x_stride : span + c.y_gap;
  std::vector<Bf16> x = bf16_data(c.rows * x_stride, c.kind, c.seed);
  const std::vector<Bf16> weight =
      bf16_data(c.width, c.kind == Kind::kOrdinary ? Kind::kSpread : Kind::kWideExponents, c.seed + 1);
  std::vector<Bf16> y(c.rows * y_stride, Bf16{0xabcd});
  RmsNorm problem{.rows = c.rows,
                  .groups = c.groups,
                  .width = c.width,
                  .x = x.data(),
                  .x_stride = x_stride,
                  .weight = weight.data(),
                  .epsilon = 1e-5f,
                  .y = in_place ? x.data() : y.data(),
                  .y_stride = y_stride};
  if (!device) {
    rms_norm_reference(problem);
    return in_place ? x : y;
  }
  const DeviceArray<Bf16> dx(*device, x), dw(*device, weight), dy(*device, y);
  problem.x = dx.data(), problem.weight = dw.data(), problem.y = in_place ? dx.data() : dy.data();
  rms_norm(*device, problem);
  return (in_place ? dx : dy).to_host(*device);
}

TEST_F(NormCuda, GivesTheReferenceBits) {
  uint64_t seed = 0;
  for (const int64_t width :
       {1,   7,    8,    31,   64,   72,   96,   104,  128,  136,  200,  248,  256,  257,  264,  512,   576,  768,
        896, 1000, 1024, 1025, 1032, 2048, 2880, 3584, 4096, 4104, 5120, 5128, 7168, 8192, 9000, 16384, 16392})
    for (const Kind kind : kAllKinds) {
      ++seed;
      // Gaps of 8 and 16 keep the fast schedules, odd ones force the generic one.
      const int64_t gaps[] = {0, 8, 16, 3};
      const Case c{static_cast<int64_t>(1 + seed % 4),
                   static_cast<int64_t>(1 + seed % 3),
                   width,
                   gaps[seed % 4],
                   gaps[seed / 4 % 4],
                   kind,
                   seed};
      for (const bool in_place : {false, true})
        ASSERT_TRUE(same_bits(run(c, &device(), in_place), run(c, nullptr, in_place)))
            << "width " << width << ", rows " << c.rows << ", groups " << c.groups << ", gaps " << c.x_gap << " " << c.y_gap
            << ", kind " << static_cast<int>(kind) << ", in place " << in_place;
    }
}

TEST_F(NormCuda, WholeRowsOfEveryModelWidth_GiveTheReferenceBits) {
  for (const int64_t width : {576, 1024, 2048, 4096, 5120, 8192, 16384})
    for (const int64_t rows : {1, 2, 7, 65})
      for (const Kind kind : {Kind::kOrdinary, Kind::kSpread, Kind::kNonFinite}) {
        const Case c{rows, 1, width, 0, 0, kind, static_cast<uint64_t>(rows + width)};
        ASSERT_TRUE(same_bits(run(c, &device(), false), run(c, nullptr, false))) << "width " << width << ", rows " << rows;
      }
}

TEST_F(NormCuda, EveryPlanOfRows_GivesTheReferenceBits) {
  for (const int64_t width : {8, 264, 1000, 1024, 1032, 2048, 4096, 5120, 8192, 10000, 16384})
    for (const int lanes : {4, 8}) {
      const std::vector<Bf16> weight = bf16_data(width, Kind::kOrdinary, 1),
                              x = bf16_data(3 * width, Kind::kSpread, static_cast<uint64_t>(width));
      std::vector<Bf16> want(3 * width);
      RmsNorm problem{.rows = 3,
                      .width = width,
                      .x = x.data(),
                      .x_stride = width,
                      .weight = weight.data(),
                      .epsilon = 1e-6f,
                      .y = want.data(),
                      .y_stride = width};
      rms_norm_reference(problem);
      const DeviceArray<Bf16> dx(device(), x), dw(device(), weight), dy(device(), 3 * width);
      problem.x = dx.data(), problem.weight = dw.data(), problem.y = dy.data();
      cuda::rms_norm(device(), problem, {.schedule = NormPlan::Schedule::kRows, .lanes = lanes});
      ASSERT_TRUE(same_bits(dy.to_host(device()), want)) << "width " << width << ", lanes " << lanes;
    }
}

TEST_F(NormCuda, MoreRowsThanBlocks_GiveTheReferenceBits) {
  for (const int64_t width : {264, 4096, 8192}) {
    const Case c{4099, 1, width, 8, 0, Kind::kSpread, 5};
    EXPECT_TRUE(same_bits(run(c, &device(), false), run(c, nullptr, false))) << width;
    EXPECT_TRUE(same_bits(run(c, &device(), true), run(c, nullptr, true))) << width;
  }
  const Case heads{777, 40, 128, 1024, 0, Kind::kSpread, 6};
  EXPECT_TRUE(same_bits(run(heads, &device(), true), run(heads, nullptr, true)));
}

TEST_F(NormCuda, ARow_HasTheSameBitsAnywhereInAnyBatch) {
  constexpr int64_t kWidth = 4096, kRows = 1500;
  const std::vector<Bf16> host = bf16_data(kRows * kWidth, Kind::kSpread, 7);
  const DeviceArray<Bf16> x(device(), host), weight(device(), bf16_data(kWidth, Kind::kOrdinary, 8)), y(device(), kRows * kWidth);
  const auto norm = [&](int64_t first, int64_t rows) {
    rms_norm(device(), {.rows = rows,
                        .width = kWidth,
                        .x = x.data() + first * kWidth,
                        .x_stride = kWidth,
                        .weight = weight.data(),
                        .epsilon = 1e-6f,
                        .y = y.data(),
                        .y_stride = kWidth});
    std::vector<Bf16> result = y.to_host(device());
    result.resize(rows * kWidth);
    return result;
  };
  const std::vector<Bf16> all = norm(0, kRows);
  for (const int64_t row : {0, 1, 791, 792, 1499})
    EXPECT_TRUE(same_bits(norm(row, 1), std::vector<Bf16>(all.begin() + row * kWidth, all.begin() + (row + 1) * kWidth))) << row;
}

TEST_F(NormCuda, ResidualAndNorm_AreTheTwoOperations) {
  for (const int64_t width : {1, 100, 128, 256, 576, 1024, 2048, 4096, 4100, 5120, 8192, 16384, 16392})
    for (const int64_t rows : {1, 3, 64})
      for (const Kind kind : {Kind::kOrdinary, Kind::kSpread, Kind::kCancelling, Kind::kNonFinite}) {
        const std::vector<Bf16> start = bf16_data(rows * width, kind, 31), y = bf16_data(rows * width, Kind::kSpread, 32);
        const std::vector<Bf16> weight = bf16_data(width, Kind::kOrdinary, 33);
        std::vector<Bf16> x = start, normed(rows * width);
        const Device cpu({});
        residual_rms_norm(cpu, {.rows = rows,
                                .width = width,
                                .x = x.data(),
                                .y = y.data(),
                                .weight = weight.data(),
                                .epsilon = 1e-6f,
                                .normed = normed.data()});
        const DeviceArray<Bf16> dx(device(), start), dy(device(), y), dw(device(), weight), dn(device(), rows * width);
        residual_rms_norm(device(), {.rows = rows,
                                     .width = width,
                                     .x = dx.data(),
                                     .y = dy.data(),
                                     .weight = dw.data(),
                                     .epsilon = 1e-6f,
                                     .normed = dn.data()});
        ASSERT_TRUE(same_bits(dx.to_host(device()), x)) << "width " << width << ", rows " << rows;
        ASSERT_TRUE(same_bits(dn.to_host(device()), normed)) << "width " << width << ", rows " << rows;
      }
}

// Control arm: data on which another order of the sum reaches the rounded result; equal bits above mean something only if some
// row of such data would notice.
TEST_F(NormCuda, AnotherOrderWouldBeNoticed) {
  constexpr int64_t kWidth = 4096, kRows = 2000;
  const std::vector<Bf16> x = bf16_data(kRows * kWidth, Kind::kSpread, 9);
  const std::vector<Bf16> ones(kWidth, Bf16{0x3f80});
  const DeviceArray<Bf16> dx(device(), x), dw(device(), ones), dy(device(), kRows * kWidth);
  rms_norm(device(), {.rows = kRows,
                      .width = kWidth,
                      .x = dx.data(),
                      .x_stride = kWidth,
                      .weight = dw.data(),
                      .epsilon = 1e-6f,
                      .y = dy.data(),
                      .y_stride = kWidth});
  const std::vector<Bf16> got = dy.to_host(device());
  int sequential_differs = 0;
  for (int64_t row = 0; row < kRows; ++row) {
    const Bf16* in = x.data() + row * kWidth;
    float chain = 0;
    for (int64_t k = 0; k < kWidth; ++k) chain = numerics::fma(numerics::widen(in[k]), numerics::widen(in[k]), chain);
    const auto scaled = [&](float sum, int64_t k) {
      const float r = numerics::rsqrt(numerics::add(numerics::div(sum, static_cast<float>(kWidth)), 1e-6f));
      return numerics::bf(numerics::mul(numerics::widen(in[k]), r)).bits;
    };
    const float sum = sum_of_squares_reference(in, kWidth);
    bool differs = false;
    for (int64_t k = 0; k < kWidth; ++k) {
      ASSERT_EQ(got[row * kWidth + k].bits, scaled(sum, k)) << "row " << row << ", element " << k;
      differs |= scaled(chain, k) != got[row * kWidth + k].bits;
    }
    sequential_differs += differs;
  }
  EXPECT_GT(sequential_differs, 0);
}

TEST(NormPlans, FitTheProblem) {
  EXPECT_EQ(plan_norm(132, 1, 40, 128, true).schedule, NormPlan::Schedule::kGroups);
  EXPECT_EQ(plan_norm(132, 1, 40, 128, true).threads, 16);
  EXPECT_EQ(plan_norm(132, 1, 40, 128, false).schedule, NormPlan::Schedule::kGeneric);
  EXPECT_EQ(plan_norm(132, 1, 40, 100, true).schedule, NormPlan::Schedule::kGeneric);
  EXPECT_EQ(plan_norm(132, 1, 40, 512, true).schedule, NormPlan::Schedule::kGeneric);
  EXPECT_EQ(plan_norm(132, 1, 1, 16392, true).schedule, NormPlan::Schedule::kGeneric);
  for (const int64_t width : {264, 1024, 1032, 4096, 16384}) {
    EXPECT_EQ(plan_norm(132, 9, 1, width, true).schedule, NormPlan::Schedule::kRows);
    EXPECT_LT(plan_norm(132, 1, 1, width, true).lanes, plan_norm(132, 1000, 1, width, true).lanes);
  }
}

}  // namespace
}  // namespace invar
