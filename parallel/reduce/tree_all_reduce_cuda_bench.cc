// The tree all-reduce over peer memory against ncclAllReduce, sizes 8 KiB to 64 MiB of fp32 values a rank, in one run.
//   parallel_reduce_cuda_bench [RANKS]              ranks are threads of this process, a GPU each
//   mpirun -np N parallel_reduce_cuda_bench mpi     ranks are processes
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "kernels/device/cuda/context.h"
#include "kernels/device/device_array.h"
#include "kernels/merge/merge.h"
#include "parallel/reduce/nccl_sum.h"
#include "parallel/reduce/tree_all_reduce.h"

namespace invar::parallel {
namespace {

using Clock = std::chrono::steady_clock;

// Microseconds of one call, the median of several runs that all ranks begin together.
template <class Function>
double time_of(const Device& device, Group& host, bool recorded, int calls, const Function& f) {
  for (int i = 0; i < 3; ++i) f();
  device.synchronize();
  const auto queue = [&] {
    for (int i = 0; i < calls; ++i) f();
  };
  RecordedWork work;
  if (recorded) work = device.record(queue);
  constexpr int kLaunches = 4;
  std::vector<double> times;
  for (int run = 0; run < 6; ++run) {
    host.barrier();
    const auto begin = Clock::now();
    for (int i = 0; i < kLaunches; ++i) recorded ? device.run(work) : queue();
    device.synchronize();
    if (run > 0) times.push_back(std::chrono::duration<double>(Clock::now() - begin).count() * 1e6 / (calls * kLaunches));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

bool measure(Transport& transport, int gpu) {
  auto opened = Device::open({.backend = Backend::kCuda, .cuda_device = gpu});
  if (!opened.ok()) {
    std::fprintf(stderr, "%s\n", std::string(opened.status().message()).c_str());
    return false;
  }
  const Device& device = **opened;
  std::vector<int> members;
  for (int r = 0; r < transport.size(); ++r) members.push_back(r);
  Group group(transport, members), host = group;
  constexpr int64_t kFirst = 8 << 10, kLast = 64 << 20;  // bytes of fp32 a rank
  auto peer = PeerMemory::open(transport, device, members, {.values = kLast, .results = kLast / 2});
  if (!peer.ok()) {
    if (group.index() == 0) std::fprintf(stderr, "%s\n", std::string(peer.status().message()).c_str());
    return false;
  }
  const auto nccl = NcclSum::start(device, group);
  if (!nccl.ok() && group.index() == 0) std::printf("without NCCL: %s\n", std::string(nccl.status().message()).c_str());
  const int tp = group.size(), me = group.index();
  const RowSegments segments = RowSegments::cut(4096, 64);
  std::vector<float> values(kLast / 4);
  uint64_t state = static_cast<uint64_t>(me);
  for (float& v : values) v = static_cast<float>(static_cast<int32_t>(numerics::mix64(state++) >> 32)) * 0x1p-31f;
  const DeviceArray<float> partials(device, values), sums(device, kLast / 4);
  const DeviceArray<Bf16> y(device, kLast / 4), x(device, kLast / 4), normed(device, kLast / 4), weight(device, 8192);
  TreeAllReduce gather(device, group, ReduceAlgorithm::kGather, peer->get()),
      scatter(device, group, ReduceAlgorithm::kScatter, peer->get());
  TreeAllReduce all(device, group, ReduceAlgorithm::kAuto, peer->get());
  if (me == 0) {
    std::printf("%d ranks, %s. Microseconds in a CUDA graph; GB/s = bytes of one fp32 matrix / time.\n", tp,
                device.describe().c_str());
    std::printf(
        "    bytes | local+norm | gather+norm  gather | scatter | auto   GB/s (eager) | nccl fp32   GB/s (eager)  bf16 | nccl "
        "fp32 / auto\n");
  }
  for (const int64_t rows : {1, 8, 16, 32, 64, 128, 256, 512, 2048, 4096}) {
    const int64_t width = 4096, elements = rows * width;
    const std::vector<numerics::TreeNode> nodes = [&] {
      std::vector<numerics::TreeNode> n;
      for (int r = 0; r < tp; ++r) n.push_back({tp == 2 ? 2 : tp == 4 ? 1 : 0, r});
      return n;
    }();
    PeerMerge m{.outputs = width, .end = elements, .nodes = nodes, .partials = partials.data(), .stride = elements};
    for (int r = 0; r <= tp; ++r) m.first[r] = r;
    const PeerNorm norm{x.data(), weight.data(), 1e-6f, normed.data()};
    std::vector<Bf16> first;
    const std::vector<Bf16> zeros(static_cast<size_t>(elements));
    std::string line;
    char text[80];
    const auto add = [&](const char* name, PeerWay way) {
      const auto run = [&] { cuda::peer_merge_norm(device, peer->get()->view(), m, norm, way); };
      device.upload(x.data(), zeros.data(), zeros.size() * sizeof(Bf16));
      run();
      std::vector<Bf16> got(zeros.size());
      device.download(got.data(), normed.data(), got.size() * sizeof(Bf16));
      if (first.empty()) first = got;
      size_t different = 0;
      for (size_t i = 0; i < got.size(); ++i) different += got[i].bits != first[i].bits;
      std::snprintf(text, sizeof text, " %s %.2f%s", name, time_of(device, host, true, rows <= 64 ? 50 : 10, run),
                    different ? " DIFFERS" : "");
      line += text;
    };
    if (rows <= 64) add("units", PeerWay::kUnits);
    if (rows <= 256) add("flags", PeerWay::kFlags);
    add("two rounds", PeerWay::kTwoRounds);
    if (me == 0) std::printf("norm %4ld rows:%s\n", static_cast<long>(rows), line.c_str());
  }
  for (int64_t bytes = kFirst; bytes <= kLast; bytes *= 2) {
    const int64_t count = bytes / 4, outputs = std::min<int64_t>(count, 4096), rows = count / outputs;
    const RowReduction problem{
        .rows = rows, .outputs = outputs, .segments = segments, .partials = partials.data(), .y = y.data()};
    const ResidualNorm next{.x = x.data(), .weight = weight.data(), .epsilon = 1e-6f, .normed = normed.data()};
    const int calls = bytes <= (1 << 20) ? 50 : 10;
    const auto time = [&](bool recorded, const auto& f) { return time_of(device, host, recorded, calls, f); };
    const std::vector<numerics::TreeNode> root{{3, 0}};
    const double local = time(true, [&] {
      MergeNodes m{.outputs = outputs, .end = count, .nodes = root};
      m.values[0] = partials.data();
      merge_residual_norm(device,
                          {.merge = m, .x = x.data(), .weight = weight.data(), .epsilon = 1e-6f, .normed = normed.data()});
    });
    const bool small = bytes <= (4 << 20);
    const double with_norm = small ? time(true, [&] { gather.run(problem, next); }) : 0;
    const double gathered = small ? time(true, [&] { gather.run(problem); }) : 0;
    const double scattered = time(true, [&] { scatter.run(problem); });
    const double chosen = time(true, [&] { all.run(problem); }), eager = time(false, [&] { all.run(problem); });
    double rival = 0, rival_eager = 0, rival_bf16 = 0;
    if (nccl.ok()) {
      rival = time(true, [&] { (*nccl)->sum(partials.data(), sums.data(), count); });
      rival_eager = time(false, [&] { (*nccl)->sum(partials.data(), sums.data(), count); });
      rival_bf16 = time(true, [&] { (*nccl)->sum(y.data(), x.data(), count); });
    }
    const auto rate = [&](double us) { return us > 0 ? static_cast<double>(bytes) / us * 1e-3 : 0; };
    if (me == 0)
      std::printf("%9ld | %10.2f | %11.2f %7.2f | %7.2f | %6.2f %6.1f (%6.2f) | %6.2f %6.1f (%6.2f) %6.2f | %.2f\n",
                  static_cast<long>(bytes), local, with_norm, gathered, scattered, chosen, rate(chosen), eager, rival,
                  rate(rival), rival_eager, rival_bf16, rival / chosen);
  }
  return true;
}

}  // namespace
}  // namespace invar::parallel

int main(int argc, char** argv) {
  using namespace invar::parallel;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    if (argc > 1 && std::string_view(argv[1]) == "mpi") {
      auto transport = start_mpi();
      if (!transport.ok()) {
        std::fprintf(stderr, "%s\n", std::string(transport.status().message()).c_str());
        return 1;
      }
      const bool done = measure(**transport, (*transport)->local_rank());
      (*transport)->finalize();
      return done ? 0 : 1;
    }
    const int ranks = argc > 1 ? std::atoi(argv[1]) : std::max(2, invar::Device::cuda_devices());
    auto transports = start_threads(ranks);
    bool done = true;
    std::mutex mutex;
    std::vector<std::thread> threads;
    for (auto& t : transports)
      threads.emplace_back([&] {
        bool mine = false;
        try {
          mine = measure(*t, t->rank() % std::max(1, invar::Device::cuda_devices()));
        } catch (const std::exception& e) {
          std::fprintf(stderr, "%s\n", e.what());
          t->abort(1);
        }
        const std::lock_guard lock(mutex);
        done &= mine;
      });
    for (std::thread& t : threads) t.join();
    return done ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
