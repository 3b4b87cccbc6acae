#include "kernels/device/device.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

namespace invar {
namespace {

TEST(Names, RoundTrip) {
  for (Profile p : {Profile::kPortable, Profile::kTc}) EXPECT_EQ(*parse_profile(name(p)), p);
  for (int i = 0; i <= static_cast<int>(ControlArm::kExpertCapacity); ++i) {
    const auto arm = static_cast<ControlArm>(i);
    ASSERT_TRUE(parse_control_arm(name(arm)).ok()) << name(arm);
    EXPECT_EQ(*parse_control_arm(name(arm)), arm);
  }
  EXPECT_EQ(name(ControlArm::kRankOrderAllReduce), "rank-order-all-reduce");
  EXPECT_EQ(name(Isa::kAvx512), "avx512");
}

TEST(Names, AnUnknownNameIsAnErrorThatSaysIt) {
  const auto profile = parse_profile("fast");
  EXPECT_EQ(profile.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(profile.status().message().find("fast"), absl::string_view::npos);
  const auto arm = parse_control_arm("Swapped-Groups");
  EXPECT_EQ(arm.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(arm.status().message().find("swapped-groups"), absl::string_view::npos);  // lists the known ones
}

TEST(DeviceMonitor, AllAreAskedAsLongAsTheyLive) {
  Device device({});
  std::vector<int> asked;
  auto first = std::make_unique<Device::Monitor>(device, [&](double) { asked.push_back(1); });
  Device::Monitor second(device, [&](double) { asked.push_back(2); });
  device.ask_monitors(0.5);
  EXPECT_EQ(asked, (std::vector{1, 2}));
  first.reset();  // in the order they came or not
  device.ask_monitors(0.5);
  EXPECT_EQ(asked, (std::vector{1, 2, 2}));
  Device::Monitor moved = std::move(second);
  device.ask_monitors(0.5);
  moved = Device::Monitor(device, [&](double waited) {
    asked.push_back(3);
    if (waited > 1) throw std::runtime_error("given up");
  });
  device.ask_monitors(0.5);
  EXPECT_EQ(asked, (std::vector{1, 2, 2, 2, 3}));
  const Device::Monitor last(device, [&](double) { asked.push_back(4); });
  EXPECT_THROW(device.ask_monitors(2.0), std::runtime_error);  // nobody behind it is asked
  EXPECT_EQ(asked, (std::vector{1, 2, 2, 2, 3, 3}));
  moved = {};
  device.ask_monitors(2.0);
  EXPECT_EQ(asked.back(), 4);
}

TEST(Buffer, IsAlignedAndZero) {
  for (size_t bytes : {size_t{1}, size_t{63}, size_t{4096}, size_t{2} << 20, (size_t{5} << 20) + 17}) {
    const Buffer buffer(bytes);
    ASSERT_NE(buffer.data(), nullptr);
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    size_t sum = 0;
    for (size_t i = 0; i < bytes; ++i) sum += static_cast<size_t>(buffer.data()[i]);
    EXPECT_EQ(sum, 0u);
    for (size_t i = 0; i < bytes; ++i)
      buffer.data()[i] = std::byte{0xff};  // all of it is writable, and the next one is zero again
  }
  EXPECT_EQ(Buffer().data(), nullptr);
  EXPECT_EQ(Buffer(0).data(), nullptr);
}

TEST(Buffer, MovesWithoutCopy) {
  for (size_t bytes : {size_t{100}, size_t{3} << 20}) {
    Buffer a(bytes);
    std::byte* p = a.data();
    Buffer b(std::move(a));
    EXPECT_EQ(b.data(), p);
    Buffer c(7);
    c = std::move(b);
    EXPECT_EQ(c.data(), p);
    EXPECT_EQ(c.size(), bytes);
  }
}

// Lasting buffers lie side by side: none may touch another, and memory given back must not come again with old contents.
TEST(Buffer, LastingOnesAreZeroAndApart) {
  for (int round = 0; round < 3; ++round) {
    std::vector<Buffer> buffers;
    for (int i = 0; i < 40; ++i)
      buffers.push_back(Buffer::lasting(Device(DeviceOptions{}), static_cast<size_t>(i % 5 == 4 ? 9000000 : 700001 + 64001 * i)));
    for (size_t i = 0; i < buffers.size(); ++i) {
      const Buffer& buffer = buffers[i];
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
      for (size_t j = 0; j < buffer.size(); j += 501) ASSERT_EQ(buffer.data()[j], std::byte{0}) << i << " " << j;
      ASSERT_EQ(buffer.data()[buffer.size() - 1], std::byte{0});
      std::memset(buffer.data(), static_cast<int>(i) + 1, buffer.size());
    }
    for (size_t i = 0; i < buffers.size(); ++i) {
      ASSERT_EQ(buffers[i].data()[0], static_cast<std::byte>(i + 1));
      ASSERT_EQ(buffers[i].data()[buffers[i].size() - 1], static_cast<std::byte>(i + 1));
      if (i % 2) buffers[i] = Buffer();
    }
  }
  EXPECT_EQ(Buffer::lasting(Device(DeviceOptions{}), 0).data(), nullptr);
  EXPECT_EQ(Buffer::lasting(Device(DeviceOptions{}), 10).size(), 10u);
}

TEST(Buffer, UntouchedMemoryIsNotResident) {
  const auto resident_kb = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  const long before = resident_kb();
  const Buffer big(size_t{1} << 30);
  EXPECT_LT(resident_kb() - before, 64 << 10);
}

class Pool : public testing::TestWithParam<int> {};

TEST_P(Pool, EveryItemOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (int64_t n : {0, 1, 2, 3, 7, 64, 1000}) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<std::atomic<int>> hits(n);
      pool.run(n, [&](int64_t i) { hits[i].fetch_add(1); });
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(hits[i].load(), 1) << i << " of " << n;
    }
  }
}

// Writes made by the items must be visible to the caller, and a job must not leak into the next one.
TEST_P(Pool, ManyShortJobsInARow) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> value(5, 0);
  for (int64_t job = 0; job < 20000; ++job) {
    pool.run(5, [&](int64_t i) { value[i] += job + i; });
  }
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(value[i], 20000 * 19999 / 2 + 20000 * i);
}

TEST_P(Pool, ARunInsideARunIsSerialAndWhole) {
  ThreadPool pool(GetParam());
  std::atomic<int> count{0};
  pool.run(8, [&](int64_t) { pool.run(8, [&](int64_t) { count.fetch_add(1); }); });
  EXPECT_EQ(count.load(), 64);
}

TEST_P(Pool, AnExceptionComesOutAndThePoolGoesOn) {
  ThreadPool pool(GetParam());
  std::atomic<int> count{0};
  EXPECT_THROW(pool.run(16,
                        [&](int64_t i) {
                          count.fetch_add(1);
                          if (i == 11) throw std::runtime_error("item 11");
                        }),
               std::runtime_error);
  EXPECT_GE(count.load(), 1);
  count = 0;
  pool.run(16, [&](int64_t) { count.fetch_add(1); });
  EXPECT_EQ(count.load(), 16);
}

INSTANTIATE_TEST_SUITE_P(Threads, Pool, testing::Values(1, 2, 3, 8));

// Several ranks share the cores: a pool without work must not use them.
TEST(PoolIdle, SleepsWhenThereIsNoWork) {
  ThreadPool pool(4);
  pool.run(100, [](int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const auto used = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-3;
  };
  const double before = used();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_LT(used() - before, 30.0);  // ms; one spinning thread would use 300
}

// Pools of several ranks at once, more threads than cores: everybody still ends.
TEST(PoolIdle, ManyPoolsShareTheCores) {
  std::vector<std::thread> ranks;
  std::atomic<int64_t> total{0};
  for (int rank = 0; rank < 8; ++rank) {
    ranks.emplace_back([&] {
      ThreadPool pool(2);
      for (int job = 0; job < 500; ++job) pool.run(4, [&](int64_t i) { total.fetch_add(i); });
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(total.load(), 8 * 500 * 6);
}

}  // namespace
}  // namespace invar
