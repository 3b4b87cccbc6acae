// The rotation on a GPU against the reference, bit for bit.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/rope/rope.h"

namespace invar {
namespace {

using namespace test_rows;
using RopeCuda = CudaTest;

struct Shape {
  int64_t rows, heads, head_dim, rotary_dim, gap;
};

std::vector<int32_t> scattered_positions(int64_t rows, int64_t limit) {
  std::vector<int32_t> positions(rows);
  for (int64_t r = 0; r < rows; ++r) positions[r] = static_cast<int32_t>((r * 7919 + 3) % limit);
  return positions;
}

TEST_F(RopeCuda, GivesTheReferenceBits) {
  for (const Shape& s :
       {Shape{1, 1, 8, 8, 0}, Shape{3, 2, 16, 16, 8}, Shape{5, 3, 24, 24, 0}, Shape{2, 9, 64, 64, 7}, Shape{4, 4, 40, 40, 1},
        Shape{4, 2, 80, 32, 16}, Shape{7, 5, 128, 128, 0}, Shape{1, 40, 128, 128, 1024}, Shape{65, 40, 128, 128, 1024},
        Shape{2, 2, 256, 64, 0}, Shape{3, 1, 6, 6, 0}, Shape{130, 8, 64, 64, 8}, Shape{300, 9, 64, 64, 24}}) {
    RopeTable table = RopeTable::make({}, 10000, s.rotary_dim, 500).value();
    table.to_device(device());
    const std::vector<int32_t> positions = scattered_positions(s.rows, 500);
    const DeviceArray<int32_t> device_positions(device(), positions);
    const int64_t stride = s.heads * s.head_dim + s.gap;
    for (const Kind kind : kAllKinds) {
      std::vector<Bf16> want = bf16_data(s.rows * stride, kind, 21);
      const DeviceArray<Bf16> x(device(), want);
      Rope problem{.rows = s.rows,
                   .heads = s.heads,
                   .head_dim = s.head_dim,
                   .x = want.data(),
                   .x_stride = stride,
                   .positions = positions.data(),
                   .table = &table};
      rope_reference(problem);
      problem.x = x.data(), problem.positions = device_positions.data();
      rope(device(), problem);
      ASSERT_TRUE(same_bits(x.to_host(device()), want))
          << s.rows << " rows, " << s.heads << " heads of " << s.head_dim << ", rotary " << s.rotary_dim << ", gap " << s.gap
          << ", kind " << static_cast<int>(kind);
    }
  }
}

// Control arm: the neighbouring position, or none, gives other bits.
TEST_F(RopeCuda, ThePositionCounts) {
  RopeTable table = RopeTable::make({}, 10000, 128, 1000).value();
  table.to_device(device());
  const std::vector<Bf16> start = bf16_data(128, Kind::kOrdinary, 5);
  const auto rotated = [&](int32_t position) {
    const DeviceArray<Bf16> x(device(), start);
    const DeviceArray<int32_t> at(device(), std::vector<int32_t>{position});
    rope(device(),
         {.rows = 1, .heads = 1, .head_dim = 128, .x = x.data(), .x_stride = 128, .positions = at.data(), .table = &table});
    return x.to_host(device());
  };
  EXPECT_TRUE(same_bits(rotated(0), start));
  EXPECT_FALSE(same_bits(rotated(617), rotated(618)));
  EXPECT_TRUE(same_bits(rotated(617), rotated(617)));
}

}  // namespace
}  // namespace invar
