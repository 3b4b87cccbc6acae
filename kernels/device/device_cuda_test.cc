#include <gtest/gtest.h>

#include <numeric>

#include "kernels/device/cuda_test.h"
#include "kernels/device/device_array.h"

namespace invar {
namespace {

using DeviceCuda = CudaTest;

TEST_F(DeviceCuda, MemoryIsZeroedAndComesBackAsItWent) {
  DeviceArray<int32_t> zeros(device(), 1000);
  EXPECT_EQ(zeros.to_host(device()), std::vector<int32_t>(1000, 0));
  std::vector<int32_t> values(100000);
  std::iota(values.begin(), values.end(), 7);
  const DeviceArray<int32_t> up(device(), values);
  DeviceArray<int32_t> moved(device(), up.size());
  device().copy(moved.data(), up.data(), values.size() * sizeof(int32_t));
  EXPECT_EQ(moved.to_host(device()), values);
}

TEST_F(DeviceCuda, WhatDoesNotFitIsAnErrorWithTheSizes) {
  try {
    Buffer(device(), size_t{1} << 50);
    FAIL() << "a petabyte was given";
  } catch (const DeviceFailure& e) {
    EXPECT_NE(std::string(e.what()).find("1125899906842624"), std::string::npos) << e.what();
  }
  EXPECT_EQ(DeviceArray<int32_t>(device(), 3).to_host(device()).size(), 3u);  // and the device lives on
}

TEST(DeviceCudaOpen, ADeviceThatIsNotThereIsAnError) {
  const auto device = Device::open({.backend = Backend::kCuda, .cuda_device = 4096});
  ASSERT_FALSE(device.ok());
  EXPECT_NE(std::string(device.status().message()).find("--device cuda"), std::string::npos);
}

}  // namespace
}  // namespace invar
