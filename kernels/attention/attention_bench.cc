// How near the CPU schedules of attention come to the machine: decode against the rate of reading memory, prefill against the
// rate of fp32 fma, both ceilings measured in the same run. Usage: kernels_attention_bench [threads]
// [portable|tc] [part of a case's name].
#include <immintrin.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <vector>

#include "kernels/attention/attention.h"

namespace invar {
namespace {

// One thread is timed by its own clock, which other work on the machine disturbs less.
double now(bool own_thread) {
  timespec t;
  clock_gettime(own_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double seconds(const Device& device, const std::function<void()>& f) {
  const bool own_thread = device.pool().threads() == 1;
  f();
  double best = 1e30, total = 0;
  for (int i = 0; i < 50 && (i < 3 || total < 0.5); ++i) {
    const double start = now(own_thread);
    f();
    const double t = now(own_thread) - start;
    best = std::min(best, t);
    total += t;
  }
  return best;
}

double read_rate(const Device& device, const std::vector<uint64_t>& data) {
  const int64_t parts = 16 * device.pool().threads(), count = static_cast<int64_t>(data.size());
  std::vector<uint64_t> sums(parts);
  const double t = seconds(device, [&] {
    device.pool().run(parts, [&](int64_t i) {
      uint64_t sum = 0;
      for (int64_t k = count * i / parts; k < count * (i + 1) / parts; ++k) sum += data[k];
      sums[i] = sum;
    });
  });
  return static_cast<double>(count) * 8 / t;
}

double copy_rate(const Device& device, const std::vector<uint64_t>& data) {
  const int64_t parts = 16 * device.pool().threads(), half = static_cast<int64_t>(data.size()) / 2;
  auto* to = const_cast<uint64_t*>(data.data()) + half;
  const double t = seconds(device, [&] {
    device.pool().run(parts, [&](int64_t i) {
      const int64_t first = half * i / parts, last = half * (i + 1) / parts;
      std::memcpy(to + first, data.data() + first, static_cast<size_t>(last - first) * 8);
    });
  });
  return static_cast<double>(half) * 16 / t;
}

constexpr int kChains = 12;
constexpr int64_t kSteps = 1 << 20;

__attribute__((target("avx512f"))) float fma_wide(int64_t steps) {
  __m512 acc[kChains];
  for (auto& a : acc) a = _mm512_set1_ps(1.0f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
  for (int64_t i = 0; i < steps; ++i)
    for (auto& a : acc) a = _mm512_fmadd_ps(a, x, y);
  for (int i = 1; i < kChains; ++i) acc[0] = _mm512_add_ps(acc[0], acc[i]);
  return _mm512_cvtss_f32(acc[0]);
}

float fma_narrow(int64_t steps) {
  __m256 acc[kChains];
  for (auto& a : acc) a = _mm256_set1_ps(1.0f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
  for (int64_t i = 0; i < steps; ++i)
    for (auto& a : acc) a = _mm256_fmadd_ps(a, x, y);
  for (int i = 1; i < kChains; ++i) acc[0] = _mm256_add_ps(acc[0], acc[i]);
  return _mm256_cvtss_f32(acc[0]);
}

double fma_rate(const Device& device) {
  const int64_t parts = 4 * device.pool().threads();
  const bool wide = device.isa() == Isa::kAvx512;
  std::vector<float> sink(parts);
  const double t = seconds(
      device, [&] { device.pool().run(parts, [&](int64_t i) { sink[i] = wide ? fma_wide(kSteps) : fma_narrow(kSteps); }); });
  return static_cast<double>(parts * kSteps * kChains * 2 * (wide ? 16 : 8)) / t;
}

struct Case {
  const char* what;
  int64_t sequences, context, rows_per_sequence, query_heads, kv_heads, head_dim, page_size, window;
};

void run_case(const Device& device, const Case& c, double read, double copy, double fma) {
  const int64_t pages_each = (c.context + c.page_size - 1) / c.page_size;
  KvPages pages(device, c.sequences * pages_each, c.page_size, c.kv_heads, c.head_dim);
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  const int64_t width = c.kv_heads * c.head_dim, slots = pages.pages() * c.page_size;
  std::vector<Bf16> line(4096 * width);
  for (Bf16& x : line) x = numerics::bf(normal(rng));
  std::vector<int64_t> all(slots);
  for (int64_t i = 0; i < slots; ++i) all[i] = i;
  for (int64_t i = 0; i < slots; i += 4096)
    pages.write(device, std::min<int64_t>(4096, slots - i), line.data(), line.data(), width, &all[i]);
  std::vector<std::vector<int32_t>> tables(c.sequences);
  for (int64_t i = 0; i < pages.pages(); ++i)
    tables[i % c.sequences].push_back(static_cast<int32_t>(i));  // interleaved, as in service
  std::vector<std::span<const int32_t>> views(tables.begin(), tables.end());
  const int64_t rows = c.sequences * c.rows_per_sequence, q_width = c.query_heads * c.head_dim;
  std::vector<Bf16> q(rows * q_width), y(rows * q_width);
  for (Bf16& x : q) x = numerics::bf(normal(rng));
  std::vector<int32_t> positions, sequences, heads;
  double keys = 0;
  for (int64_t r = 0; r < rows; ++r) {
    sequences.push_back(static_cast<int32_t>(r / c.rows_per_sequence));
    positions.push_back(static_cast<int32_t>(c.context - c.rows_per_sequence + r % c.rows_per_sequence));
    keys += c.window ? std::min<double>(static_cast<double>(c.window), positions.back() + 1.0) : positions.back() + 1.0;
  }
  for (int64_t h = 0; h < c.query_heads; ++h) heads.push_back(static_cast<int32_t>(h * c.kv_heads / c.query_heads));
  AttentionStep step;
  step.reset(device, positions, sequences, views, c.page_size);
  const Attention problem{.query_heads = c.query_heads,
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
  const double t = seconds(device, [&] { attention(device, problem); });
  const double flops = keys * static_cast<double>(c.query_heads * c.head_dim) * 4;
  const double bytes = static_cast<double>(c.sequences * (c.window ? std::min(c.window, c.context) : c.context) * width * 4);
  std::printf("%-28s %10.1f us  %7.1f GB/s of KV (%3.0f%% of read, %3.0f%% of copy)  %7.1f GFLOP/s (%3.0f%% of fma)\n", c.what,
              t * 1e6, bytes / t * 1e-9, 100 * bytes / t / read, 100 * bytes / t / copy, flops / t * 1e-9, 100 * flops / t / fma);
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  using namespace invar;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const bool tc = argc > 2 && std::string_view(argv[2]) == "tc";
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (isa == Isa::kAvx512 && detect_isa() != Isa::kAvx512) continue;
    const Device device({.profile = tc ? Profile::kTc : Profile::kPortable, .threads = threads, .isa = isa});
    double read, copy;
    {
      const std::vector<uint64_t> data(size_t{256} << 17, 1);
      read = read_rate(device, data);
      copy = copy_rate(device, data);
    }
    const double fma = fma_rate(device);
    std::printf("%s %s, %d threads: read %.1f GB/s, copy %.1f GB/s (read + written), fma %.1f GFLOP/s\n",
                std::string(name(device.profile())).c_str(), std::string(name(isa)).c_str(), threads, read * 1e-9, copy * 1e-9,
                fma * 1e-9);
    const Case cases[] = {
        {"decode 1 x 32768, 8/8 hd128", 1, 32768, 1, 8, 8, 128, 16, 0},
        {"decode 1 x 32768, 32/8 hd128", 1, 32768, 1, 32, 8, 128, 16, 0},
        {"decode 1 x 32768, 64/8 hd128", 1, 32768, 1, 64, 8, 128, 16, 0},
        {"decode 16 x 2048, 32/8 hd128", 16, 2048, 1, 32, 8, 128, 16, 0},
        {"decode 16 x 2048, 14/2 hd64", 16, 2048, 1, 14, 2, 64, 64, 0},
        {"decode 16 x 100, 16/8 hd128", 16, 100, 1, 16, 8, 128, 16, 0},
        {"prefill 512, 16/8 hd128", 1, 512, 512, 16, 8, 128, 16, 0},
        {"prefill 2048, 8/2 hd128", 1, 2048, 2048, 8, 2, 128, 16, 0},
        {"prefill 512 at 4096, 4/1 hd64", 1, 4096, 512, 4, 1, 64, 16, 0},
        {"prefill 512 at 4096, window 1k", 1, 4096, 512, 4, 1, 128, 16, 1024},
    };
    for (const Case& c : cases) {
      if (argc > 3 && std::string_view(c.what).find(argv[3]) == std::string_view::npos) continue;
      if (tc && c.context > 4096 && c.query_heads > 32) continue;
      run_case(device, c, read, copy, fma);
    }
  }
}
