// Fixture of tests that need a GPU: skipped, with the reason, where there is none.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "kernels/device/device.h"

namespace invar {

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Device::open({.backend = Backend::kCuda});
    if (!opened.ok()) GTEST_SKIP() << std::string(opened.status().message());
    device_ = *std::move(opened);
  }
  const Device& device() const { return *device_; }
  // Another device on the same GPU.
  static std::unique_ptr<Device> open(Profile profile, ControlArm arm = ControlArm::kNone) {
    return *Device::open({.profile = profile, .control_arm = arm, .backend = Backend::kCuda});
  }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace invar
