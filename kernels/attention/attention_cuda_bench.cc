// How near the GPU's attention comes to the machine: decode against the rate of a plain copy, prefill in TFLOP/s. As in a model,
// a call is one of a recorded row of dependent launches, and where keys and values are few, each has its own, that no cache
// holds. Usage: kernels_attention_cuda_bench [tc|portable] [part of a case's name]... One line a case: name | sequences context
// rows query_heads kv_heads head_dim | microseconds | ...; rival.py reads it.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <numeric>
#include <random>
#include <string_view>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/attention/cuda/attention.h"
#include "kernels/device/cuda/context.h"
#include "kernels/device/device_array.h"

namespace invar {
namespace {

// Median over rounds of the time of one call in a row of calls.
double seconds(const Device& device, const std::function<void()>& f) {
  cudaEvent_t begin, end;
  cuda::check(cudaEventCreate(&begin));
  cuda::check(cudaEventCreate(&end));
  const auto timed = [&](int calls) {
    cuda::check(cudaEventRecord(begin, device.cuda().stream));
    for (int i = 0; i < calls; ++i) f();
    cuda::check(cudaEventRecord(end, device.cuda().stream));
    cuda::check(cudaEventSynchronize(end));
    float ms = 0;
    cuda::check(cudaEventElapsedTime(&ms, begin, end));
    return ms * 1e-3 / calls;
  };
  timed(2);
  const int calls = static_cast<int>(std::clamp(0.01 / timed(2), 2.0, 200.0));
  std::vector<double> times;
  for (int i = 0; i < 7; ++i) times.push_back(timed(calls));
  std::sort(times.begin(), times.end());
  cuda::check(cudaEventDestroy(begin));
  cuda::check(cudaEventDestroy(end));
  return times[times.size() / 2];
}

// Bytes read and written a second by the copy engine of memory.
double copy_rate(const Device& device) {
  constexpr size_t kBytes = size_t{1} << 30;
  const Buffer from(device, kBytes), to(device, kBytes);
  return 2 * static_cast<double>(kBytes) / seconds(device, [&] { device.copy(to.data(), from.data(), kBytes); });
}

struct Case {
  const char* what;
  int64_t sequences, context, rows, query_heads, kv_heads, head_dim, page_size, window = 0;
  int64_t decode = 0;  // sequences more, of one row each
};

void run_case(const Device& device, const Case& c, double copy) {
  const int64_t sequences = c.sequences + c.decode, pages_each = (c.context + c.page_size - 1) / c.page_size;
  constexpr size_t kCached = size_t{256} << 20;
  std::vector<KvPages> layers;
  do {
    layers.emplace_back(device, sequences * pages_each, c.page_size, c.kv_heads, c.head_dim);
  } while (layers.size() < 36 && layers.size() * layers[0].bytes() < kCached);
  const KvPages& pages = layers[0];
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  const auto values = [&](int64_t count) {
    std::vector<Bf16> v(count);
    for (Bf16& x : v) x = numerics::bf(normal(rng));
    return v;
  };
  const int64_t width = c.kv_heads * c.head_dim, slots = pages.pages() * c.page_size;
  constexpr int64_t kAtOnce = 4096;
  const DeviceArray<Bf16> keys(device, values(kAtOnce * width)), other(device, values(kAtOnce * width));
  std::vector<int64_t> all(slots);
  std::iota(all.begin(), all.end(), int64_t{0});
  const DeviceArray<int64_t> where(device, all);
  for (KvPages& layer : layers)
    for (int64_t i = 0; i < slots; i += kAtOnce)
      layer.write(device, std::min(kAtOnce, slots - i), keys.data(), other.data(), width, where.data() + i);
  std::vector<int32_t> order(pages.pages());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), rng);
  std::vector<std::span<const int32_t>> tables;
  for (int64_t s = 0; s < sequences; ++s) tables.push_back(std::span(order).subspan(s * pages_each, pages_each));
  std::vector<int32_t> positions, sequence_of, heads;
  double visible = 0, bytes = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t rows = s < c.sequences ? c.rows : 1;
    for (int64_t r = 0; r < rows; ++r) {
      sequence_of.push_back(static_cast<int32_t>(s));
      positions.push_back(static_cast<int32_t>(c.context - rows + r));
      visible += static_cast<double>(c.window ? std::min<int64_t>(c.window, positions.back() + 1) : positions.back() + 1);
    }
    bytes += static_cast<double>((c.window ? std::min(c.window, c.context) : c.context) * width * 4);
  }
  for (int64_t h = 0; h < c.query_heads; ++h) heads.push_back(static_cast<int32_t>(h * c.kv_heads / c.query_heads));
  const int64_t q_width = c.query_heads * c.head_dim, rows = static_cast<int64_t>(positions.size());
  const DeviceArray<Bf16> q(device, values(rows * q_width)), y(device, rows * q_width);
  AttentionStep step;
  step.reset(device, positions, sequence_of, tables, c.page_size, {.kv = c.kv_heads, .group = c.query_heads / c.kv_heads});
  Attention problem{.query_heads = c.query_heads,
                    .head_dim = c.head_dim,
                    .q = q.data(),
                    .q_stride = q_width,
                    .step = &step,
                    .kv_head_of = heads,
                    .pages = &pages,
                    .window = c.window,
                    .scale = 0.088f,
                    .y = y.data(),
                    .y_stride = q_width};
  const size_t calls = std::max<size_t>(layers.size(), 4);
  const auto work = [&] {
    for (size_t i = 0; i < calls; ++i) {
      problem.pages = &layers[i % layers.size()];
      attention(device, problem);
    }
  };
  work();  // memory grows here
  const RecordedWork recorded = device.record(work);
  const double t = seconds(device, [&] { device.run(recorded); }) / static_cast<double>(calls);
  const double flops = visible * static_cast<double>(q_width) * 4;
  std::printf("%-32s | %ld %ld %ld %ld %ld %ld | %9.1f us | %7.0f GB/s of KV, %3.0f%% of copy | %6.1f TFLOP/s\n", c.what,
              static_cast<long>(c.sequences), static_cast<long>(c.context), static_cast<long>(c.rows),
              static_cast<long>(c.query_heads), static_cast<long>(c.kv_heads), static_cast<long>(c.head_dim), t * 1e6,
              bytes / t * 1e-9, 100 * bytes / t / copy, flops / t * 1e-12);
  std::fflush(stdout);
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  using namespace invar;
  const bool portable = argc > 1 && std::string_view(argv[1]) == "portable";
  auto device = Device::open({.profile = portable ? Profile::kPortable : Profile::kTc, .backend = Backend::kCuda});
  if (!device.ok()) {
    std::fprintf(stderr, "%s\n", std::string(device.status().message()).c_str());
    return 1;
  }
  const double copy = copy_rate(**device);
  std::printf("%s, %s: copy %.0f GB/s (read + written)\n", (*device)->describe().c_str(),
              std::string(name((*device)->profile())).c_str(), copy * 1e-9);
  const Case cases[] = {
      {"decode 32 x 4096, 32/8 hd128", 32, 4096, 1, 32, 8, 128, 16},
      {"decode 32 x 4096, 64/8 hd128", 32, 4096, 1, 64, 8, 128, 16},
      {"decode 32 x 4096, 32/8 hd128 p64", 32, 4096, 1, 32, 8, 128, 64},
      {"decode 64 x 1024, 32/8 hd128", 64, 1024, 1, 32, 8, 128, 16},
      {"decode 8 x 1024, 32/8 hd128", 8, 1024, 1, 32, 8, 128, 16},
      {"decode 1 x 4096, 32/8 hd128", 1, 4096, 1, 32, 8, 128, 16},
      {"decode 1 x 1000, 32/8 hd128", 1, 1000, 1, 32, 8, 128, 16},
      {"decode 1 x 400, 32/8 hd128", 1, 400, 1, 32, 8, 128, 16},
      {"decode 8 x 1024, 16/4 hd128", 8, 1024, 1, 16, 4, 128, 16},
      {"decode 1 x 4096, 16/4 hd128", 1, 4096, 1, 16, 4, 128, 16},
      {"decode 1 x 1000, 16/4 hd128", 1, 1000, 1, 16, 4, 128, 16},
      {"decode 1 x 400, 16/4 hd128", 1, 400, 1, 16, 4, 128, 16},
      {"decode 1 x 65536, 32/8 hd128", 1, 65536, 1, 32, 8, 128, 16},
      {"decode 32 x 4096, 8/1 hd128", 32, 4096, 1, 8, 1, 128, 16},
      {"decode 32 x 3333, 14/2 hd64", 32, 3333, 1, 14, 2, 64, 16},
      {"prefill 4096, 32/8 hd128", 1, 4096, 4096, 32, 8, 128, 16},
      {"prefill 4096, 64/8 hd128", 1, 4096, 4096, 64, 8, 128, 16},
      {"prefill 4096, 8/1 hd128", 1, 4096, 4096, 8, 1, 128, 16},
      {"prefill 8192, 32/8 hd128", 1, 8192, 8192, 32, 8, 128, 16},
      {"prefill 2 x 2048, 32/8 hd128", 2, 2048, 2048, 32, 8, 128, 16},
      {"prefill 4096, 32/32 hd64", 1, 4096, 4096, 32, 32, 64, 16},
      {"chunk 512 at 4096, 32/8 hd128", 1, 4096, 512, 32, 8, 128, 16},
      {"chunk 512 at 4096 + 32 decode", 1, 4096, 512, 32, 8, 128, 16, 0, 32},
      {"chunk 16 at 32768, 32/8 hd128", 1, 32768, 16, 32, 8, 128, 16},
  };
  for (const Case& c : cases) {
    const bool asked = argc < 3 || std::any_of(argv + 2, argv + argc, [&](const char* part) {
                         return std::string_view(c.what).find(part) != std::string_view::npos;
                       });
    if (!asked) continue;
    run_case(**device, c, copy);
  }
}
