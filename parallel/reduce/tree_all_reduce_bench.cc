// Time of the tree all-reduce by size and rank count, both algorithms, against a plain copy of the same bytes.
//   parallel_reduce_bench               ranks are threads of this process, 2 to 4 of them
//   mpirun -np N parallel_reduce_bench mpi    ranks are processes
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <thread>

#include "parallel/reduce/tree_all_reduce.h"

namespace invar::parallel {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Best of several runs: other work on the machine can only make it slower.
template <class Function>
double best_seconds(int repeats, int calls, const Function& f) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    for (int c = 0; c < calls; ++c) f();
    best = std::min(best, seconds_since(start) / calls);
  }
  return best;
}

struct Line {
  double gather, scatter;
};

Line measure(Transport& transport, int64_t bytes) {
  std::vector<int> members;
  for (int r = 0; r < transport.size(); ++r) members.push_back(r);
  const Device device(DeviceOptions{});
  const int64_t outputs = 1024, rows = bytes / 4 / outputs;
  const RowSegments segments = RowSegments::cut(4096, 64);
  const std::vector<float> partials(5 * rows * outputs, 1.5f);
  std::vector<Bf16> y(rows * outputs);
  Line line{};
  for (const auto algorithm : {ReduceAlgorithm::kGather, ReduceAlgorithm::kScatter}) {
    TreeAllReduce reduce(device, Group(transport, members), algorithm);
    const RowReduction problem{
        .rows = rows, .outputs = outputs, .segments = segments, .partials = partials.data(), .y = y.data()};
    for (int i = 0; i < 3; ++i) reduce.run(problem);
    const int calls = static_cast<int>(std::clamp<int64_t>((4 << 20) / bytes, 1, 100));
    (algorithm == ReduceAlgorithm::kGather ? line.gather : line.scatter) = best_seconds(7, calls, [&] { reduce.run(problem); });
  }
  return line;
}

void print(int ranks, int64_t bytes, const Line& line) {
  const std::vector<std::byte> from(bytes, std::byte{1});
  std::vector<std::byte> to(bytes);
  const double copy = best_seconds(7, static_cast<int>(std::clamp<int64_t>((16 << 20) / bytes, 1, 1000)), [&] {
    std::memcpy(to.data(), from.data(), bytes);
    asm volatile("" : : "r"(to.data()) : "memory");
  });
  const auto rate = [&](double seconds) { return static_cast<double>(bytes) / seconds * 1e-9; };
  std::printf("%5d %9ld | %9.1f us %6.2f GB/s | %9.1f us %6.2f GB/s | %9.1f us %6.2f GB/s | %s\n", ranks, bytes,
              line.gather * 1e6, rate(line.gather), line.scatter * 1e6, rate(line.scatter), copy * 1e6, rate(copy),
              line.gather < line.scatter ? "gather" : "scatter");
  std::fflush(stdout);
}

}  // namespace
}  // namespace invar::parallel

int main(int argc, char** argv) {
  using namespace invar::parallel;
  const char* header =
      "ranks  partial B |        gather             |       scatter             |     plain copy            | faster\n";
  constexpr int64_t kFirst = 4 << 10, kLast = 16 << 20;
  if (argc > 1 && std::string_view(argv[1]) == "mpi") {
    auto transport = start_mpi();
    if (!transport.ok()) {
      std::fprintf(stderr, "%s\n", std::string(transport.status().message()).c_str());
      return 1;
    }
    if ((*transport)->rank() == 0) std::fputs(header, stdout);
    for (int64_t bytes = kFirst; bytes <= kLast; bytes *= 2) {
      const Line line = measure(**transport, bytes);
      if ((*transport)->rank() == 0) print((*transport)->size(), bytes, line);
    }
    (*transport)->finalize();
    return 0;
  }
  std::fputs(header, stdout);
  for (int ranks = 2; ranks <= 4; ++ranks)
    for (int64_t bytes = kFirst; bytes <= kLast; bytes *= 2) {
      auto transports = start_threads(ranks);
      Line line{};
      std::vector<std::thread> threads;
      for (auto& t : transports)
        threads.emplace_back([&] {
          const Line mine = measure(*t, bytes);
          if (t->rank() == 0) line = mine;
        });
      for (std::thread& t : threads) t.join();
      print(ranks, bytes, line);
    }
}
