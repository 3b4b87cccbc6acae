#include "kernels/linear/gather_rows.h"

#include <gtest/gtest.h>

#include <vector>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"
#include "kernels/linear/hostile_values.h"

namespace invar {
namespace {

constexpr Bf16 kUntouched{0x1234};

// Rows by id, in any order and more than once; ids of other ranks and what lies behind a row of y change nothing.
void expect_copies(const Device& device) {
  for (const int64_t inputs : {1, 31, 64, 576, 1025}) {
    const int64_t outputs = 71, first_id = 5000, stride = inputs + 3;
    hostile::Values values(9 + inputs);
    const std::vector<Bf16> table = values.vector(hostile::Kind::kAnyBits, outputs * inputs);
    PackedWeights weights(device, outputs, inputs);
    weights.pack_rows(0, table.data(), outputs, inputs);
    std::vector<int32_t> ids = {5070, 5000, 5063, 5064, 5000, 5001, 4999, 5071, 0, -1};
    for (int i = 0; i < 50; ++i) ids.push_back(static_cast<int32_t>(first_id + values.below(outputs)));
    const auto rows = static_cast<int64_t>(ids.size());
    const DeviceArray<int32_t> ids_there(device, ids);
    const DeviceArray<Bf16> y(device, std::vector<Bf16>(rows * stride, kUntouched));
    gather_rows(
        device,
        {.weights = &weights, .ids = ids_there.data(), .first_id = first_id, .rows = rows, .y = y.data(), .y_stride = stride});
    const std::vector<Bf16> got = y.to_host(device);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < stride; ++k)
        ASSERT_EQ(got[r * stride + k].bits, k < inputs && ids[r] >= first_id && ids[r] < first_id + outputs
                                                ? table[(ids[r] - first_id) * inputs + k].bits
                                                : kUntouched.bits)
            << device.describe() << " " << name(device.profile()) << " inputs " << inputs << " row " << r << " at " << k;
  }
}

TEST(GatherRows, CopiesRowsByTheirId) { expect_copies(Device(DeviceOptions{})); }

TEST(GatherRows, NoRowsTouchNothing) {
  const Device device(DeviceOptions{});
  const PackedWeights weights(device, 4, 8);
  gather_rows(device, {.weights = &weights, .rows = 0});
}

class GatherRowsCuda : public CudaTest {};

TEST_F(GatherRowsCuda, CopiesRowsByTheirId) {
  expect_copies(*open(Profile::kPortable));
  expect_copies(*open(Profile::kTc));
}

}  // namespace
}  // namespace invar
