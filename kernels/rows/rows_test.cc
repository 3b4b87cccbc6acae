#include "kernels/rows/rows.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;

TEST(Rows, GatherAndScatter_AreInverse) {
  constexpr int64_t kRows = 700, kWidth = 96;
  const Device device({.threads = 3});
  const std::vector<Bf16> x = bf16_data(kRows * kWidth, Kind::kNonFinite, 1);
  std::vector<int64_t> order(kRows);
  for (int64_t i = 0; i < kRows; ++i) order[i] = i * 37 % kRows;
  std::vector<Bf16> moved(kRows * kWidth), back(kRows * kWidth);
  const int64_t bytes = kWidth * sizeof(Bf16);
  gather_rows(device, {kRows, bytes, x.data(), bytes, order.data(), moved.data(), bytes});
  EXPECT_EQ(moved[kWidth].bits, x[37 * kWidth].bits);
  EXPECT_FALSE(same_bits(moved, x));
  scatter_rows(device, {kRows, bytes, moved.data(), bytes, order.data(), back.data(), bytes});
  EXPECT_TRUE(same_bits(back, x));
}

TEST(Rows, NegativeNumbersArePassedOver) {
  const Device device({});
  const std::vector<float> x = {1, 2, 3, 4};
  const std::vector<int32_t> index = {3, -1, 0};
  std::vector<float> y(3, 9.0f), z(4, 9.0f);
  gather_rows(device, {3, 4, x.data(), 4, index.data(), y.data(), 4});
  EXPECT_EQ(y, (std::vector<float>{4, 9, 1}));
  scatter_rows(device, {3, 4, x.data(), 4, index.data(), z.data(), 4});
  EXPECT_EQ(z, (std::vector<float>{3, 9, 9, 1}));
}

TEST(Rows, ShardsOfAnyWidthsJoin) {
  const Device device({});
  const std::vector<float> a = {1, 2, 3, 4, 5, 6}, b, c = {7, 8};
  std::vector<float> y(8);
  const std::vector<const float*> shards = {a.data(), b.data(), c.data()};
  const std::vector<int64_t> widths = {3, 0, 1};
  join_shards(device, {2, shards, widths, y.data()});
  EXPECT_EQ(y, (std::vector<float>{1, 2, 3, 7, 4, 5, 6, 8}));
}

}  // namespace
}  // namespace invar
