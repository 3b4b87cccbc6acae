// Windows of GPU memory: who may have one, and rows and shards that move through them.
#include <gtest/gtest.h>

#include <functional>

#include "kernels/device/cuda/context.h"
#include "kernels/device/device_array.h"
#include "parallel/transport/gpu_ranks.h"
#include "parallel/transport/peer_memory.h"

namespace invar::parallel {
namespace {

constexpr PeerSizes kSizes{.values = 64 << 10, .results = 64 << 10, .whole = 1 << 20};

TEST(PeerMemoryOfCpus, IsRefused) {
  auto transports = start_threads(1);
  const Device cpu({});
  const auto opened = PeerMemory::open(*transports[0], cpu, {0}, kSizes);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().message().find("--exchange peer"), std::string_view::npos) << std::string(opened.status().message());
}

// A kernel that is loaded at its first launch waits for others, who may wait for this rank.
TEST(PeerMemory, KernelsAreLoadedWhenAGpuIsFirstUsed) {
  if (Device::cuda_devices() == 0) GTEST_SKIP() << "no GPU";
  decltype(&cuModuleGetLoadingMode) loading_mode = nullptr;
  cudaDriverEntryPointQueryResult found;
  cuda::check(cudaGetDriverEntryPointByVersion("cuModuleGetLoadingMode", reinterpret_cast<void**>(&loading_mode), 12000,
                                               cudaEnableDefault, &found));
  CUmoduleLoadingMode mode;
  ASSERT_EQ(loading_mode(&mode), CUDA_SUCCESS);
  EXPECT_EQ(mode, CU_MODULE_EAGER_LOADING);
}

class PeerMemoryOf : public RanksOnGpus {
 protected:
  void with_ranks(const std::function<void(const Device&, Transport&, PeerMemory&)>& body) {
    const auto [ranks, gpus] = GetParam();
    std::vector<int> members;
    for (int r = 0; r < ranks; ++r) members.push_back(r);
    with_gpu_ranks(ranks, gpus, {}, [&, gpus = gpus](const Device& device, Transport& transport) {
      auto peer = PeerMemory::open(transport, device, members, kSizes);
      if (!peer.ok()) throw std::runtime_error(std::string(peer.status().message()));
      EXPECT_EQ((*peer)->recordable(), gpus == static_cast<int>(members.size()));
      body(device, transport, **peer);
    });
  }
};
INSTANTIATE_TEST_SUITE_P(RanksOnGpus, PeerMemoryOf,
                         testing::Values(std::pair(2, 1), std::pair(3, 1), std::pair(8, 1), std::pair(2, 2), std::pair(4, 4)),
                         ranks_on_gpus);

Bf16 value_of(int64_t id, int64_t k) { return {static_cast<uint16_t>(numerics::mix64(static_cast<uint64_t>(id * 100003 + k)))}; }

TEST_P(PeerMemoryOf, RowsComeFromTheirOwners) {
  with_ranks([](const Device& device, Transport& transport, PeerMemory& peer) {
    const int ranks = transport.size(), rank = transport.rank();
    for (const int64_t width : {1, 7, 64, 4096})
      for (const int64_t rows : {1, 5, 70}) {
        constexpr int64_t kIds = 1000;
        cuda::PeerRows p{.rows = rows, .width = width};
        for (int m = 0; m <= ranks; ++m) p.first_id[m] = kIds * m / ranks;
        std::vector<int32_t> ids;
        std::vector<Bf16> x(rows * width, Bf16{0xabcd}), want;
        for (int64_t r = 0; r < rows; ++r) {
          // Now and then all of one owner, so that somebody waits for nobody.
          const int64_t id = rows == 5 ? 3 : static_cast<int64_t>(numerics::mix64(static_cast<uint64_t>(r)) % kIds);
          ids.push_back(static_cast<int32_t>(id));
          for (int64_t k = 0; k < width; ++k) {
            want.push_back(value_of(id, k));
            if (id >= p.first_id[rank] && id < p.first_id[rank + 1]) x[r * width + k] = want.back();
          }
        }
        const DeviceArray<int32_t> device_ids(device, ids);
        p.ids = device_ids.data();
        for (int again = 0; again < 3; ++again) {
          const DeviceArray<Bf16> device_x(device, x);
          p.x = device_x.data();
          ASSERT_GE(cuda::peer_rows_limit(peer.view(), width), rows);
          peer.run([&] { cuda::peer_rows(device, peer.view(), p); });
          const std::vector<Bf16> got = device_x.to_host(device);
          for (size_t i = 0; i < want.size(); ++i)
            ASSERT_EQ(got[i].bits, want[i].bits) << "rank " << rank << ", " << rows << " x " << width << ", element " << i;
        }
      }
  });
}

TEST_P(PeerMemoryOf, ShardsLieSideBySide) {
  with_ranks([](const Device& device, Transport& transport, PeerMemory& peer) {
    const int ranks = transport.size(), rank = transport.rank();
    for (const int64_t stride : {11, 1024, 3001})
      for (const int64_t rows : {1, 3, 64}) {
        const int64_t first = stride * rank / ranks, width = stride * (rank + 1) / ranks - first;
        for (uint64_t step = 0; step < 3; ++step) {
          const auto value = [&](int64_t r, int64_t c) {
            return numerics::bits_float(
                static_cast<uint32_t>(numerics::mix64(step * 7919 + static_cast<uint64_t>(r * stride + c))));
          };
          std::vector<float> part;
          for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = first; c < first + width; ++c) part.push_back(value(r, c));
          const DeviceArray<float> mine(device, part);
          if (rank == 0)
            for (int64_t r = 0; r < rows; ++r)
              device.copy(peer.whole() + r * stride, mine.data() + r * width, static_cast<size_t>(width) * sizeof(float));
          peer.run([&] {
            cuda::peer_shards(device, peer.view(),
                              {.rows = rows, .stride = stride, .column = first, .width = width, .part = mine.data()});
          });
          device.synchronize();
          if (rank != 0) {
            EXPECT_EQ(peer.whole(), nullptr);
            continue;
          }
          std::vector<float> got(static_cast<size_t>(rows * stride));
          device.download(got.data(), peer.whole(), got.size() * sizeof(float));
          for (size_t i = 0; i < got.size(); ++i)
            ASSERT_EQ(numerics::float_bits(got[i]),
                      numerics::float_bits(value(static_cast<int64_t>(i) / stride, static_cast<int64_t>(i) % stride)))
                << rows << " x " << stride << ", element " << i;
        }
      }
  });
}

TEST_P(PeerMemoryOf, AnotherReplicaOnTheSameGpusIsRefused) {
  const int ranks = GetParam().first;
  auto replica = start_threads(ranks);
  with_ranks([&](const Device& device, Transport& transport, PeerMemory&) {
    std::vector<int> members;
    for (int r = 0; r < ranks; ++r) members.push_back(r);
    const auto other = PeerMemory::open(*replica[transport.rank()], device, members, kSizes);
    ASSERT_FALSE(other.ok());
    EXPECT_NE(other.status().message().find("another replica of this process has GPU"), std::string_view::npos)
        << std::string(other.status().message());
    Group(transport, members, 7).barrier();
  });
}

TEST_P(PeerMemoryOf, SharedGpusAreRefusedWhereAskedFor) {
  const auto [ranks, gpus] = GetParam();
  std::vector<int> members;
  for (int r = 0; r < ranks; ++r) members.push_back(r);
  with_gpu_ranks(ranks, gpus, {}, [&, gpus = gpus, ranks = ranks](const Device& device, Transport& transport) {
    const auto peer = PeerMemory::open(transport, device, members, kSizes, {}, SharedGpus::kRefused);
    EXPECT_EQ(peer.ok(), gpus == ranks) << std::string(peer.status().message());
    Group(transport, members, 7).barrier();
  });
}

// What stages and experts of the same ranks go by, while another replica on their GPUs has to take the host.
TEST_P(PeerMemoryOf, NcclIsTakenBesideItByTheSameRanksOnly) {
  const auto [ranks, gpus] = GetParam();
  auto replica = start_threads(ranks);
  with_ranks([&, gpus = gpus, ranks = ranks](const Device& device, Transport& transport, PeerMemory&) {
    const auto other = start_nccl(*replica[transport.rank()], device);
    ASSERT_FALSE(other.ok());
    EXPECT_NE(other.status().message().find(gpus == ranks ? "another replica of this process has GPU" : "two ranks share GPU"),
              std::string_view::npos)
        << std::string(other.status().message());
    const auto own = start_nccl(transport, device);
    EXPECT_EQ(own.ok(), gpus == ranks) << std::string(own.status().message());
  });
}

// Both have waits of the device's to tell of. What a wait that was given up has left must not be taken for a result.
TEST_P(PeerMemoryOf, AWaitGivenUpIsNoticedBesideNccl) {
  const auto [ranks, gpus] = GetParam();
  if (gpus < ranks) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  std::vector<int> members;
  for (int r = 0; r < ranks; ++r) members.push_back(r);
  with_gpu_ranks(ranks, gpus, {}, [&](const Device& device, Transport& transport) {
    const auto peer = PeerMemory::open(transport, device, members, kSizes, {.timeout = std::chrono::milliseconds(500)});
    if (!peer.ok()) throw std::runtime_error(std::string(peer.status().message()));
    const auto nccl = start_nccl(transport, device);
    if (!nccl.ok()) throw std::runtime_error(std::string(nccl.status().message()));
    if (transport.rank() == 0) {
      (*peer)->run([&] { cuda::peer_greeting(device, (*peer)->view()); });
      EXPECT_THROW(device.synchronize(), PeerFailure);
    }
    Group(transport, members, 7).barrier();
  });
}

}  // namespace
}  // namespace invar::parallel
