// Moving rows on a GPU against the same on the host.
#include <gtest/gtest.h>

#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/lanes/test_rows.h"
#include "kernels/rows/rows.h"

namespace invar {
namespace {

using namespace test_rows;
using RowsCuda = CudaTest;

TEST_F(RowsCuda, GatherAndScatter_MoveWhatTheHostMoves) {
  const Device cpu({});
  for (const int64_t bytes : {2, 4, 6, 16, 1152, 8192, 8196, 40000})
    for (const int64_t count : {1, 5, 300})
      for (const int64_t gap : {0, 2, 16}) {
        const int64_t stride = (bytes + gap) / 2, all = stride * 400;
        const std::vector<Bf16> x = bf16_data(all, Kind::kNonFinite, 1);
        std::vector<int64_t> wide(count);
        std::vector<int32_t> narrow(count);
        for (int64_t i = 0; i < count; ++i) narrow[i] = i % 7 == 3 ? -1 : static_cast<int32_t>(i * 37 % 400), wide[i] = narrow[i];
        const DeviceArray<Bf16> dx(device(), x);
        const DeviceArray<int64_t> device_wide(device(), wide);
        const DeviceArray<int32_t> device_narrow(device(), narrow);
        for (const bool gathers : {true, false}) {
          std::vector<Bf16> want(all, Bf16{0xabcd});
          const DeviceArray<Bf16> y(device(), want);
          const auto move = gathers ? gather_rows : scatter_rows;
          move(cpu, {count, bytes, x.data(), stride * 2, wide.data(), want.data(), stride * 2});
          MoveRows problem{count, bytes, dx.data(), stride * 2, device_wide.data(), y.data(), stride * 2};
          if (count % 2) problem.index = device_narrow.data();
          move(device(), problem);
          ASSERT_TRUE(same_bits(y.to_host(device()), want)) << bytes << " bytes, " << count << " rows, gathers " << gathers;
        }
      }
}

TEST_F(RowsCuda, ShardsJoin) {
  const Device cpu({});
  for (const auto& widths : {std::vector<int64_t>{151936}, {75968, 75968}, {3, 0, 1, 5000}, {1, 2, 3, 4, 5, 6, 7, 8}})
    for (const int64_t rows : {1, 3, 17}) {
      std::vector<std::vector<float>> shards;
      std::vector<DeviceArray<float>> device_shards;
      std::vector<const float*> from, device_from;
      int64_t width = 0;
      for (const int64_t w : widths) shards.push_back(float_data(rows * w, Kind::kNonFinite, width)), width += w;
      for (const auto& s : shards) {
        device_shards.emplace_back(device(), s);
        from.push_back(s.data());
        device_from.push_back(device_shards.back().data());
      }
      std::vector<float> want(rows * width);
      const DeviceArray<float> y(device(), rows * width);
      join_shards(cpu, {rows, from, widths, want.data()});
      join_shards(device(), {rows, device_from, widths, y.data()});
      ASSERT_TRUE(same_bits(y.to_host(device()), want)) << widths.size() << " shards, " << rows << " rows";
    }
}

}  // namespace
}  // namespace invar
