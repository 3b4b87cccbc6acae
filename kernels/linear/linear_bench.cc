// Speed of the linears on the shapes of a 135M-parameter Llama, against ceilings measured in the same run.
//
//   kernels_linear_bench [--threads N] [--isa scalar|avx2|avx512] [--profile portable|tc] [--seconds S]
//
// Decode reads weights from memory (copies of each matrix are used in turn, over 128 MB of them) and is compared with a copy
// (bytes read plus bytes written) and with a plain read. Prefill is compared with independent FMAs in registers. Each number is
// the best of several repetitions: the machine may be shared.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/linear/linear.h"

namespace invar {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  DeviceOptions device;
  double seconds = 0.5;  // a measurement
};

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Seconds of one call f(i), i counting up: the best window of at least 1.5 ms within `seconds`. Short windows find the moments
// when nobody else runs on the machine.
template <class F>
double best_time(double seconds, const F& f) {
  int64_t call = 0;
  f(call++);
  double best = 1e30;
  for (const auto start = Clock::now(); since(start) < seconds;) {
    const auto window = Clock::now();
    const int64_t first = call;
    double t = 0;
    do {
      f(call++);
      t = since(window);
    } while (t < 0.0015);
    best = std::min(best, t / static_cast<double>(call - first));
  }
  return best;
}

uint64_t sink;  // keeps the ceilings' work alive

double copy_bytes_per_second(const Device& device, double seconds) {
  const int64_t bytes = 256 << 20, part = 32 << 20, piece = 1 << 20;
  Buffer from(bytes), to(bytes);
  std::memset(from.data(), 1, bytes);
  std::memset(to.data(), 1, bytes);
  const double t = best_time(seconds, [&](int64_t call) {
    const int64_t at = call * part % bytes;
    device.pool().run(part / piece,
                      [&](int64_t i) { std::memcpy(to.data() + at + i * piece, from.data() + at + i * piece, piece); });
  });
  return 2.0 * part / t;
}

double read_bytes_per_second(const Device& device, double seconds) {
  const int64_t bytes = 256 << 20, part = 32 << 20, piece = 256 << 10;
  Buffer from(bytes);
  std::memset(from.data(), 1, bytes);
  std::vector<uint64_t> sums(part / piece);
  const double t = best_time(seconds, [&](int64_t call) {
    device.pool().run(part / piece, [&](int64_t i) {
      __m256i sum[4] = {};
      const auto* p = reinterpret_cast<const __m256i*>(from.data() + call * part % bytes + i * piece);
      for (int64_t j = 0; j < piece / 32; j += 4)
        for (int64_t l = 0; l < 4; ++l) sum[l] = _mm256_add_epi64(sum[l], _mm256_load_si256(p + j + l));
      const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
      sums[i] = static_cast<uint64_t>(_mm256_extract_epi64(all, 0) + _mm256_extract_epi64(all, 3));
    });
  });
  for (uint64_t s : sums) sink += s;
  return part / t;
}

constexpr int kFmaRounds = 5000, kChains = 12;
[[gnu::target("avx512f")]] float fma_chains_avx512() {
  __m512 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int round = 0; round < kFmaRounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
  __m512 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, acc[i]);
  return _mm512_cvtss_f32(sum);
}
float fma_chains_avx2() {
  __m256 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int round = 0; round < kFmaRounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
  __m256 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_ps(sum, acc[i]);
  return _mm256_cvtss_f32(sum);
}

double fma_flops_per_second(const Device& device, double seconds) {
  const int threads = device.pool().threads();
  std::vector<float> results(threads * 64);
  const double t = best_time(seconds, [&](int64_t) {
    device.pool().run(
        threads, [&](int64_t i) { results[i * 64] = device.isa() == Isa::kAvx512 ? fma_chains_avx512() : fma_chains_avx2(); });
  });
  for (float r : results) sink += static_cast<uint64_t>(r);
  return 2.0 * kFmaRounds * kChains * (device.isa() == Isa::kAvx512 ? 16 : 8) * threads / t;
}

struct Shape {
  int64_t outputs, inputs;
  bool row;  // row-parallel (o, down)
};
constexpr Shape kShapes[] = {{576, 576, false}, {576, 576, true}, {1536, 576, false}, {576, 1536, true}, {49152, 576, false}};

std::vector<Bf16> random_values(int64_t count, uint64_t seed) {
  std::vector<Bf16> values(count);
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t r = numerics::mix64(seed + static_cast<uint64_t>(i));
    // Sum of four uniform numbers: near enough to what weights look like.
    const double u = static_cast<double>((r & 0xffff) + (r >> 16 & 0xffff) + (r >> 32 & 0xffff) + (r >> 48)) / 65536.0 - 2.0;
    values[i] = numerics::bf(static_cast<float>(u));
  }
  return values;
}

struct Rates {
  double bytes, flops;  // per second
};

Rates measure(const Device& device, const Shape& shape, int64_t rows, double seconds) {
  const int64_t weight_bytes = shape.outputs * shape.inputs * 2;
  const int copies = rows > 16 ? 1 : static_cast<int>((128 << 20) / weight_bytes + 1);
  std::vector<PackedWeights> weights;
  const std::vector<Bf16> values = random_values(shape.outputs * shape.inputs, 1);
  for (int i = 0; i < copies; ++i) {
    weights.emplace_back(device, shape.outputs, shape.inputs);
    weights.back().pack_rows(0, values.data(), shape.outputs, shape.inputs);
  }
  const std::vector<Bf16> x = random_values(rows * shape.inputs, 2);
  std::vector<Bf16> y(rows * shape.outputs);
  std::vector<float> partials(rows * shape.outputs);
  const RowSegments segments = RowSegments::cut(shape.inputs, numerics::down_unit(shape.inputs));
  const std::vector<TreeNode> nodes = maximal_subtrees(segments, 0, numerics::kSegments);
  const double t = best_time(seconds, [&](int64_t call) {
    const PackedWeights& w = weights[call % copies];
    if (shape.row) {
      linear_row(device, {.rows = rows,
                          .x = x.data(),
                          .x_stride = shape.inputs,
                          .weights = &w,
                          .segments = segments,
                          .nodes = nodes,
                          .partials = partials.data()});
    } else {
      linear_column(
          device,
          {.rows = rows, .x = x.data(), .x_stride = shape.inputs, .weights = &w, .y = y.data(), .y_stride = shape.outputs});
    }
  });
  return {static_cast<double>(weight_bytes) / t, 2.0 * static_cast<double>(rows * shape.outputs * shape.inputs) / t};
}

int run(const Options& options) {
  const Device device(options.device);
  const int threads = device.pool().threads();
  const bool tc = device.profile() == Profile::kTc;
  std::printf("profile %s, isa %s, threads %d\n", std::string(name(device.profile())).c_str(),
              std::string(name(device.isa())).c_str(), threads);
  const double copy = copy_bytes_per_second(device, options.seconds), read = read_bytes_per_second(device, options.seconds);
  const double fma = fma_flops_per_second(device, options.seconds);
  std::printf("ceilings: copy %.1f GB/s (read + written), read %.1f GB/s, fma %.0f GFLOP/s\n\n", copy / 1e9, read / 1e9,
              fma / 1e9);
  std::printf("%-22s %5s %9s %7s %7s %10s %7s\n", "outputs x inputs", "rows", "GB/s", "% copy", "% read", "GFLOP/s",
              tc ? "/core" : "% fma");
  for (const Shape& shape : kShapes) {
    for (int64_t rows : {1, 4, 16, 64, 256, 512}) {
      if (tc && shape.outputs > 4096 && rows > 64) continue;
      const Rates rates = measure(device, shape, rows, options.seconds);
      std::printf("%6ld x %-5ld %-7s %5ld ", shape.outputs, shape.inputs, shape.row ? "row" : "column", rows);
      if (rows <= 16)
        std::printf("%9.1f %7.0f %7.0f ", rates.bytes / 1e9, 100 * rates.bytes / copy, 100 * rates.bytes / read);
      else
        std::printf("%9s %7s %7s ", "", "", "");
      if (tc)
        std::printf("%10.1f %7.1f\n", rates.flops / 1e9, rates.flops / 1e9 / threads);
      else
        std::printf("%10.1f %7.0f\n", rates.flops / 1e9, 100 * rates.flops / fma);
      std::fflush(stdout);
    }
  }
  return sink == 1 ? 1 : 0;
}

}  // namespace
}  // namespace invar

int main(int argc, char** argv) {
  invar::Options options;
  options.device.threads = 2;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    bool known = true;
    if (flag == "--threads") {
      options.device.threads = std::max(1, std::atoi(value.c_str()));
    } else if (flag == "--seconds") {
      options.seconds = std::atof(value.c_str());
    } else if (flag == "--profile") {
      const auto profile = invar::parse_profile(value);
      known = profile.ok();
      if (known) options.device.profile = *profile;
    } else if (flag == "--isa") {
      known = false;
      for (invar::Isa isa : {invar::Isa::kScalar, invar::Isa::kAvx2, invar::Isa::kAvx512})
        if (value == invar::name(isa) && isa <= invar::detect_isa()) options.device.isa = isa, known = true;
    } else {
      known = false;
    }
    if (!known) {
      std::fprintf(stderr,
                   "unknown or impossible: %s %s\nusage: %s [--threads N] [--isa scalar|avx2|avx512] [--profile portable|tc] "
                   "[--seconds S]\n",
                   flag.c_str(), value.c_str(), argv[0]);
      return 2;
    }
    ++i;
  }
  return invar::run(options);
}
