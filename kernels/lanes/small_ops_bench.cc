// GB/s of the element-wise kernels and their share of a copy of the same bytes by the same threads in the same run.
// kernels_small_ops_bench [threads]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "kernels/activation/activation.h"
#include "kernels/moe/router.h"
#include "kernels/norm/norm.h"
#include "kernels/rope/rope.h"

namespace invar {
namespace {

// Processor time of all threads over their number: what a round takes when nobody else uses the cores.
double seconds_of(int threads, const std::function<void()>& f) {
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  const double start = now();
  f();
  return (now() - start) / threads;
}

// Best of several rounds: the box may be shared.
double best_seconds(int threads, const std::function<void()>& f) {
  f();
  const int repeats = std::max(1, static_cast<int>(2e-3 / std::max(seconds_of(threads, f), 1e-7)));
  double best = 1e9;
  for (int round = 0; round < 15; ++round)
    best = std::min(best, seconds_of(threads, [&] {
                            for (int i = 0; i < repeats; ++i) f();
                          }) / repeats);
  return best;
}

struct Bench {
  const Device& device;
  std::vector<Bf16> x, y;

  // A copy that reads and writes `bytes` in all.
  double copy_rate(int64_t bytes) {
    const int64_t parts = device.pool().threads(), half = bytes / 2;
    return bytes / best_seconds(device.pool().threads(), [&] {
             device.pool().run(parts, [&](int64_t i) {
               const int64_t begin = half * i / parts / 64 * 64, end = i + 1 == parts ? half : half * (i + 1) / parts / 64 * 64;
               std::memcpy(reinterpret_cast<char*>(y.data()) + begin, reinterpret_cast<const char*>(x.data()) + begin,
                           end - begin);
             });
           });
  }
  void report(const char* what, int64_t width, int64_t rows, int64_t bytes, const std::function<void()>& f) {
    const double rate = bytes / best_seconds(device.pool().threads(), f), copy = copy_rate(bytes);
    std::printf("  %-14s width %5ld rows %6ld  %7.2f GB/s  copy %7.2f GB/s  share %4.0f %%\n", what, static_cast<long>(width),
                static_cast<long>(rows), rate * 1e-9, copy * 1e-9, 100 * rate / copy);
  }

  void run(int64_t width, int64_t rows) {
    x.assign(2 * rows * width, Bf16{0x3f8a});
    y.assign(2 * rows * width, Bf16{0x3f8a});
    const std::vector<Bf16> weight(width, Bf16{0x3f80});
    const int64_t bytes = rows * width * 2;
    report("norm", width, rows, 2 * bytes, [&] {
      rms_norm(device, {.rows = rows,
                        .width = width,
                        .x = x.data(),
                        .x_stride = width,
                        .weight = weight.data(),
                        .epsilon = 1e-5f,
                        .y = y.data(),
                        .y_stride = width});
    });
    report("q/k norm (64)", width, rows, 2 * bytes, [&] {
      rms_norm(device, {.rows = rows,
                        .groups = width / 64,
                        .width = 64,
                        .x = x.data(),
                        .x_stride = width,
                        .weight = weight.data(),
                        .epsilon = 1e-5f,
                        .y = y.data(),
                        .y_stride = width});
    });
    const RopeTable table = RopeTable::make({}, 10000, 64, 2048).value();
    std::vector<int32_t> positions(rows);
    for (int64_t r = 0; r < rows; ++r) positions[r] = static_cast<int32_t>(r % 2048);
    report("rope (64)", width, rows, 2 * bytes, [&] {
      rope(device, {.rows = rows,
                    .heads = width / 64,
                    .head_dim = 64,
                    .x = y.data(),
                    .x_stride = width,
                    .positions = positions.data(),
                    .table = &table});
    });
    report("silu_mul", width, rows, 3 * bytes, [&] {
      silu_mul(device, {.rows = rows, .width = width, .x = x.data(), .x_stride = 2 * width, .y = y.data(), .y_stride = width});
    });
    report("residual", width, rows, 3 * bytes, [&] { residual_add(device, y.data(), x.data(), rows * width); });
    constexpr int64_t kTopK = 8;
    const int64_t tokens = rows / kTopK;
    if (!tokens) return;
    std::vector<int64_t> row_of(tokens * kTopK);
    for (int64_t i = 0; i < tokens * kTopK; ++i) row_of[i] = (i * 7) % (tokens * kTopK);
    const std::vector<float> weights(tokens * kTopK, 0.125f);
    report("combine (8)", width, rows, (kTopK + 1) * tokens * width * 2, [&] {
      combine(device, {.rows = tokens,
                       .width = width,
                       .top_k = kTopK,
                       .expert_rows = x.data(),
                       .row_of = row_of.data(),
                       .weights = weights.data(),
                       .y = y.data()});
    });
  }

  void run_router(int64_t experts, int64_t rows) {
    std::vector<float> logits(rows * experts), weights(rows * 8);
    std::vector<int32_t> ids(rows * 8);
    for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(numerics::mix64(i) >> 40) * 0x1p-22f;
    const double t = best_seconds(device.pool().threads(), [&] {
      route(
          device,
          {.rows = rows, .experts = experts, .top_k = 8, .logits = logits.data(), .ids = ids.data(), .weights = weights.data()});
    });
    std::printf("  router         experts %4ld rows %5ld  %7.0f ns a row\n", static_cast<long>(experts), static_cast<long>(rows),
                t * 1e9 / static_cast<double>(rows));
  }
};

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  for (const invar::Isa isa : {invar::Isa::kAvx2, invar::Isa::kAvx512}) {
    if (isa > invar::detect_isa()) continue;
    const invar::Device device({.threads = threads, .isa = isa});
    invar::Bench bench{device, {}, {}};
    std::printf("%s, %d threads\n", std::string(invar::name(isa)).c_str(), threads);
    for (const int64_t width : {576, 4096}) {
      bench.run(width, 32);                  // a decode step's rows: caches
      bench.run(width, (24 << 20) / width);  // 48 MB a pass: memory
    }
    bench.run_router(128, 512);
  }
}
