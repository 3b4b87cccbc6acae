#include "kernels/ceilings/ceilings.h"

#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace invar::ceilings {
namespace {

constexpr double kWindow = 1.5e-3;
constexpr int64_t kArea = 256 << 20, kPart = 32 << 20, kPiece = 512 << 10;  // bytes: touched in turn, of a call, of an item
constexpr int kRounds = 5000, kChains = 12;

volatile uint64_t kept;  // what the compiler must not throw away

#if defined(__x86_64__)
[[gnu::target("avx512f")]] float chains_avx512() {
  __m512 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
  __m512 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm512_add_ps(sum, acc[i]);
  return _mm512_cvtss_f32(sum);
}

float chains_avx2() {
  __m256 acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
  __m256 sum = acc[0];
  for (int i = 1; i < kChains; ++i) sum = _mm256_add_ps(sum, acc[i]);
  return _mm256_cvtss_f32(sum);
}
#endif

float chains_scalar() {
  float acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = static_cast<float>(i);
  for (int round = 0; round < kRounds; ++round)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = __builtin_fmaf(acc[i], 0.999f, 0.001f);
  float sum = 0;
  for (float a : acc) sum += a;
  return sum;
}

// Four sums keep enough loads in flight; the loop is vectorised.
uint64_t sum_of(const uint64_t* p, int64_t count) {
  uint64_t sums[16] = {};
  for (int64_t i = 0; i < count; i += 16)
    for (int l = 0; l < 16; ++l) sums[l] += p[i + l];
  uint64_t sum = 0;
  for (uint64_t s : sums) sum += s;
  return sum;
}

}  // namespace

MemoryCeiling::MemoryCeiling(const Device& device) : device_(device), from_(kArea), to_(kArea) {
  std::memset(from_.data(), 1, kArea);
  std::memset(to_.data(), 1, kArea);
}

double MemoryCeiling::copy_rate(double seconds) {
  int64_t at = 0;
  const double pieces = best_time(seconds / 2, kWindow, [&] {
    device_.pool().run(kPart / kPiece,
                       [&](int64_t i) { std::memcpy(to_.data() + at + i * kPiece, from_.data() + at + i * kPiece, kPiece); });
    at = (at + kPart) % kArea;
  });
  // The C library stores past the caches when a single copy is very long, which may be faster or slower.
  const int64_t threads = device_.pool().threads(), share = kArea / threads / 64 * 64;
  const double whole = best_time(seconds / 2, kWindow, [&] {
    device_.pool().run(threads, [&](int64_t i) { std::memcpy(to_.data() + i * share, from_.data() + i * share, share); });
  });
  return std::max(2.0 * kPart / pieces, 2.0 * static_cast<double>(share * threads) / whole);
}

double MemoryCeiling::read_rate(double seconds) {
  std::vector<uint64_t> sums(kPart / kPiece);
  int64_t at = 0;
  const double t = best_time(seconds, kWindow, [&] {
    device_.pool().run(kPart / kPiece, [&](int64_t i) {
      sums[i] = sum_of(reinterpret_cast<const uint64_t*>(from_.data() + at + i * kPiece), kPiece / 8);
    });
    at = (at + kPart) % kArea;
  });
  for (uint64_t s : sums) kept = kept + s;
  return kPart / t;
}

double fma_rate(const Device& device, double seconds) {
  float (*chains)() = chains_scalar;
  int lanes = 1;
#if defined(__x86_64__)
  if (device.isa() == Isa::kAvx512) chains = chains_avx512, lanes = 16;
  if (device.isa() == Isa::kAvx2) chains = chains_avx2, lanes = 8;
#endif
  const int threads = device.pool().threads();
  std::vector<float> results(threads * 64);
  const double t =
      best_time(seconds, kWindow, [&] { device.pool().run(threads, [&](int64_t i) { results[i * 64] = chains(); }); });
  for (float r : results) kept = kept + static_cast<uint64_t>(r);
  return 2.0 * kRounds * kChains * lanes * threads / t;
}

}  // namespace invar::ceilings
