// Tests' ranks on GPUs: threads of this program, with a GPU each where there are enough, or several on one.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/device/device.h"
#include "parallel/transport/transport.h"

namespace invar::parallel {

// A test of so many ranks on so many GPUs, skipped where there are fewer.
class RanksOnGpus : public testing::TestWithParam<std::pair<int, int>> {
 protected:
  void SetUp() override {
    const int there = Device::cuda_devices();
    if (there < GetParam().second) GTEST_SKIP() << GetParam().second << " GPUs wanted, " << there << " there";
    auto device = Device::open({.backend = Backend::kCuda});
    if (!device.ok()) GTEST_SKIP() << std::string(device.status().message());
  }
};

inline std::string ranks_on_gpus(const testing::TestParamInfo<std::pair<int, int>>& info) {
  return std::to_string(info.param.first) + "_on_" + std::to_string(info.param.second);
}

// Rank r on GPU r mod `gpus`, which `options` need not name. What a rank throws is printed, ends the others and fails the test.
inline void with_gpu_ranks(int ranks, int gpus, DeviceOptions options,
                           const std::function<void(const Device&, Transport&)>& body) {
  auto transports = start_threads(ranks);
  options.backend = Backend::kCuda;
  std::vector<std::thread> threads;
  std::mutex mutex;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank, own = options]() mutable {
      std::string wrong;
      try {
        own.cuda_device = rank % gpus;
        auto device = Device::open(own);
        if (!device.ok()) throw std::runtime_error(std::string(device.status().message()));
        body(**device, *transports[rank]);
      } catch (const std::exception& e) {
        wrong = e.what();
        transports[rank]->abort(1);
      }
      const std::lock_guard lock(mutex);
      EXPECT_EQ(wrong, "") << "rank " << rank;
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace invar::parallel
