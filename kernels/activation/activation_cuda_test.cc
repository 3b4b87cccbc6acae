// The element-wise steps on a GPU against the reference, bit for bit.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/activation/cuda/activation.h"
#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"

namespace invar {
namespace {

using namespace test_rows;
using ActivationCuda = CudaTest;

TEST_F(ActivationCuda, EveryGateValue_GivesTheReferenceBits) {
  constexpr int64_t kCount = 65536;
  for (const Kind kind : kAllKinds) {
    std::vector<Bf16> x(2 * kCount), want(kCount);
    const std::vector<Bf16> up = bf16_data(kCount, kind, 5);
    for (int64_t i = 0; i < kCount; ++i) x[i] = Bf16{static_cast<uint16_t>(i)}, x[kCount + i] = up[i];
    SiluMul problem{.rows = 1, .width = kCount, .x = x.data(), .x_stride = 2 * kCount, .y = want.data(), .y_stride = kCount};
    silu_mul_reference(problem);
    const DeviceArray<Bf16> dx(device(), x), dy(device(), kCount);
    problem.x = dx.data(), problem.y = dy.data();
    for (const int piece : {1, 2, 4, 8}) {
      device().upload(dy.data(), std::vector<Bf16>(kCount).data(), kCount * sizeof(Bf16));
      cuda::silu_mul(device(), problem, piece);
      EXPECT_TRUE(same_bits(dy.to_host(device()), want)) << "piece " << piece << ", kind " << static_cast<int>(kind);
    }
  }
}

TEST_F(ActivationCuda, AnyWidthAndStride_GivesTheReferenceBits) {
  for (const int64_t width : {1, 3, 8, 15, 16, 17, 64, 100, 1536, 2056, 4096, 12288})
    for (const int64_t rows : {1, 2, 5, 33})
      for (const int64_t gap : {0, 3, 8}) {
        const int64_t x_stride = 2 * width + gap, y_stride = width + gap;
        const std::vector<Bf16> x = bf16_data(rows * x_stride, Kind::kOrdinary, static_cast<uint64_t>(width * rows));
        std::vector<Bf16> want(rows * y_stride, Bf16{0xabcd});
        const DeviceArray<Bf16> dx(device(), x), dy(device(), want);
        SiluMul problem{
            .rows = rows, .width = width, .x = x.data(), .x_stride = x_stride, .y = want.data(), .y_stride = y_stride};
        silu_mul_reference(problem);
        problem.x = dx.data(), problem.y = dy.data();
        silu_mul(device(), problem);
        ASSERT_TRUE(same_bits(dy.to_host(device()), want)) << "width " << width << ", rows " << rows << ", gap " << gap;
      }
}

TEST_F(ActivationCuda, MoreRowsThanAGridIsHigh_GiveTheReferenceBits) {
  constexpr int64_t kRows = 70000, kWidth = 8;
  const std::vector<Bf16> x = bf16_data(kRows * 2 * kWidth, Kind::kSpread, 3);
  std::vector<Bf16> want(kRows * kWidth);
  const DeviceArray<Bf16> dx(device(), x), dy(device(), kRows * kWidth);
  SiluMul problem{.rows = kRows, .width = kWidth, .x = x.data(), .x_stride = 2 * kWidth, .y = want.data(), .y_stride = kWidth};
  silu_mul_reference(problem);
  problem.x = dx.data(), problem.y = dy.data();
  silu_mul(device(), problem);
  EXPECT_TRUE(same_bits(dy.to_host(device()), want));
}

TEST_F(ActivationCuda, Residual_GivesTheReferenceBits) {
  for (const int64_t count : {1, 7, 8, 9, 15, 16, 17, 100, 576, 4096, 100003, 4000000})
    for (const Kind kind : kAllKinds) {
      if (count > 1000000 && kind != Kind::kSpread) continue;
      const std::vector<Bf16> start = bf16_data(count + 1, kind, 11), y = bf16_data(count, Kind::kWideExponents, 12);
      for (const int64_t shift : {0, 1}) {  // 1: not aligned; the element beside the range must stay
        std::vector<Bf16> want = start;
        const DeviceArray<Bf16> dx(device(), start), dy(device(), y);
        residual_add_reference(want.data() + shift, y.data(), count);
        residual_add(device(), dx.data() + shift, dy.data(), count);
        ASSERT_TRUE(same_bits(dx.to_host(device()), want)) << "count " << count << ", kind " << static_cast<int>(kind);
        residual_add_reference(want.data() + shift, want.data() + shift, count);
        residual_add(device(), dx.data() + shift, dx.data() + shift, count);
        ASSERT_TRUE(same_bits(dx.to_host(device()), want)) << "on itself, count " << count;
      }
    }
}

}  // namespace
}  // namespace invar
