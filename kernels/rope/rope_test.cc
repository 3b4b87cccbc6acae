#include "kernels/rope/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;

struct Shape {
  int64_t rows, heads, head_dim, rotary_dim, gap;
};

std::vector<int32_t> scattered_positions(int64_t rows, int64_t limit) {
  std::vector<int32_t> positions(rows);
  for (int64_t r = 0; r < rows; ++r) positions[r] = static_cast<int32_t>((r * 7919 + 3) % limit);
  return positions;
}

TEST(Rope, EverySchedule_GivesTheReferenceBits) {
  for (const Shape& s : {Shape{1, 1, 8, 8, 0}, Shape{3, 2, 16, 16, 5}, Shape{5, 3, 24, 24, 0}, Shape{2, 9, 64, 64, 7},
                         Shape{4, 4, 40, 40, 1}, Shape{4, 2, 80, 32, 3}, Shape{7, 5, 128, 128, 0}, Shape{2, 2, 256, 64, 0},
                         Shape{3, 1, 6, 6, 0}, Shape{130, 8, 64, 64, 2}}) {
    const RopeTable table = RopeTable::make({}, 10000, s.rotary_dim, 500).value();
    const std::vector<int32_t> positions = scattered_positions(s.rows, 500);
    const int64_t stride = s.heads * s.head_dim + s.gap;
    for (const Kind kind : kAllKinds) {
      const std::vector<Bf16> start = bf16_data(s.rows * stride, kind, 21);
      const auto run = [&](const DeviceOptions* options) {
        std::vector<Bf16> x = start;
        const Rope problem{.rows = s.rows,
                           .heads = s.heads,
                           .head_dim = s.head_dim,
                           .x = x.data(),
                           .x_stride = stride,
                           .positions = positions.data(),
                           .table = &table};
        if (options)
          rope(Device(*options), problem);
        else
          rope_reference(problem);
        return x;
      };
      const std::vector<Bf16> want = run(nullptr);
      for (const DeviceOptions& options : devices())
        ASSERT_TRUE(same_bits(run(&options), want)) << describe(options) << ", head_dim " << s.head_dim << ", rotary "
                                                    << s.rotary_dim << ", kind " << static_cast<int>(kind);
      // What lies outside the rotated part is as it was.
      for (int64_t r = 0; r < s.rows; ++r)
        for (int64_t i = 0; i < stride; ++i) {
          if (i < s.heads * s.head_dim && i % s.head_dim < s.rotary_dim) continue;
          ASSERT_EQ(want[r * stride + i].bits, start[r * stride + i].bits);
        }
    }
  }
}

TEST(Rope, ARow_DependsOnItsPositionAlone) {
  constexpr int64_t kWidth = 3 * 32;
  const RopeTable table = RopeTable::make({}, 10000, 32, 1000).value();
  const std::vector<Bf16> row = bf16_data(kWidth, Kind::kOrdinary, 5);
  const Device device({});
  std::vector<Bf16> alone = row;
  const int32_t at = 617, elsewhere = 618;
  rope(device, {.rows = 1, .heads = 3, .head_dim = 32, .x = alone.data(), .x_stride = kWidth, .positions = &at, .table = &table});
  std::vector<Bf16> batch = bf16_data(50 * kWidth, Kind::kOrdinary, 6);
  std::copy(row.begin(), row.end(), batch.begin() + 31 * kWidth);
  std::vector<int32_t> positions = scattered_positions(50, 1000);
  positions[31] = at;
  rope(device, {.rows = 50,
                .heads = 3,
                .head_dim = 32,
                .x = batch.data(),
                .x_stride = kWidth,
                .positions = positions.data(),
                .table = &table});
  EXPECT_TRUE(same_bits(std::vector<Bf16>(batch.begin() + 31 * kWidth, batch.begin() + 32 * kWidth), alone));
  std::vector<Bf16> other = row;  // control: the next position differs
  rope(device,
       {.rows = 1, .heads = 3, .head_dim = 32, .x = other.data(), .x_stride = kWidth, .positions = &elsewhere, .table = &table});
  EXPECT_FALSE(same_bits(other, alone));
}

TEST(Rope, PositionZero_ChangesNothing) {
  const RopeTable table = RopeTable::make({}, 10000, 64, 1).value();
  const std::vector<Bf16> start = bf16_data(64, Kind::kWideExponents, 1);
  const int32_t zero = 0;
  std::vector<Bf16> x = start;
  rope(Device({}), {.rows = 1, .heads = 1, .head_dim = 64, .x = x.data(), .x_stride = 64, .positions = &zero, .table = &table});
  EXPECT_TRUE(same_bits(x, start));
}

TEST(Rope, IsCloseToDoublePrecision) {
  constexpr int64_t kDim = 64;
  const RopeTable table = RopeTable::make({}, 10000, kDim, 300).value();
  const std::vector<Bf16> start = bf16_data(kDim, Kind::kOrdinary, 9);
  for (const int32_t position : {1, 17, 299}) {
    std::vector<Bf16> x = start;
    rope(Device({}),
         {.rows = 1, .heads = 1, .head_dim = kDim, .x = x.data(), .x_stride = kDim, .positions = &position, .table = &table});
    for (int i = 0; i < kDim / 2; ++i) {
      const double angle = position * std::pow(10000.0, -2.0 * i / kDim), c = std::cos(angle), s = std::sin(angle);
      const double x1 = numerics::widen(start[i]), x2 = numerics::widen(start[kDim / 2 + i]);
      EXPECT_NEAR(numerics::widen(x[i]), x1 * c - x2 * s, 0x1p-8 * (std::abs(x1) + std::abs(x2)));
      EXPECT_NEAR(numerics::widen(x[kDim / 2 + i]), x2 * c + x1 * s, 0x1p-8 * (std::abs(x1) + std::abs(x2)));
    }
  }
}

// Control arm: the plausible other placements of the roundings give other bits on this data.
TEST(Rope, OtherRoundings_Differ) {
  const RopeTable table = RopeTable::make({}, 10000, 128, 4000).value();
  int unfused = 0, other_product_fused = 0;
  Random random{3};
  for (int trial = 0; trial < 200000; ++trial) {
    const int64_t position = random.next() % 4000, i = random.next() % 64;
    const float x1 = numerics::widen(numerics::bf(random.bell())), x2 = numerics::widen(numerics::bf(random.bell()));
    const float c = table.cosine(position)[i], s = table.sine(position)[i];
    const uint16_t want = numerics::bf(numerics::fma(x1, c, -numerics::mul(x2, s))).bits;
    unfused += numerics::bf(numerics::sub(numerics::mul(x1, c), numerics::mul(x2, s))).bits != want;
    other_product_fused += numerics::bf(numerics::fma(-x2, s, numerics::mul(x1, c))).bits != want;
  }
  EXPECT_GT(unfused, 0);
  EXPECT_GT(other_product_fused, 0);
}

}  // namespace
}  // namespace invar
