// Inputs and comparisons for the tests of the element-wise kernels. Test code only.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/device/device.h"

namespace invar::test_rows {

struct Random {
  uint64_t state;
  uint32_t next() { return static_cast<uint32_t>(numerics::mix64(state++) >> 32); }
  float uniform() { return static_cast<float>(next() >> 8) * 0x1p-24f; }               // [0, 1)
  float bell() { return (uniform() + uniform() + uniform() + uniform() - 2) * 1.7f; }  // about N(0, 1)
};

// The shapes of data that find wrong roundings, wrong orders and flushed subnormals.
// kSpread is the one for orders: squares of bf16 numbers have 16 bits, so sums of kOrdinary ones are often exact, and of
// kWideExponents only the largest term counts; with a few binades between the terms every step rounds.
enum class Kind { kOrdinary, kSpread, kWideExponents, kSubnormal, kZeros, kCancelling, kTies, kHuge, kNonFinite };
inline constexpr Kind kAllKinds[] = {Kind::kOrdinary,   Kind::kSpread, Kind::kWideExponents, Kind::kSubnormal, Kind::kZeros,
                                     Kind::kCancelling, Kind::kTies,   Kind::kHuge,          Kind::kNonFinite};
inline constexpr Kind kFiniteKinds[] = {Kind::kOrdinary, Kind::kSpread,     Kind::kWideExponents, Kind::kSubnormal,
                                        Kind::kZeros,    Kind::kCancelling, Kind::kTies,          Kind::kHuge};

inline float draw(Kind kind, Random& random) {
  const uint32_t bits = random.next();
  const float sign = bits & 1 ? -1.0f : 1.0f;
  switch (kind) {
    case Kind::kOrdinary:
      return random.bell();
    case Kind::kSpread:
      return random.bell() * numerics::bits_float((127 - 6 + bits % 12) << 23);
    case Kind::kWideExponents:
      return numerics::bits_float((bits & 0x807fffffu) | (24 + (bits >> 8) % 208) << 23);
    case Kind::kSubnormal:
      return numerics::bits_float(bits & 0x807fffffu);
    case Kind::kZeros:
      return bits % 5 ? sign * 0.0f : random.bell();
    case Kind::kCancelling:
      return sign * (bits % 3 ? 1024.0f : 0x1p-9f * random.uniform());
    case Kind::kTies:
      return sign * static_cast<float>(bits >> 4 & 3) * 0.5f;
    case Kind::kHuge:
      return sign * 3e38f * random.uniform();
    case Kind::kNonFinite: {
      constexpr uint32_t kSpecial[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc10000u, 0x7f810000u, 0x7fff0000u};
      return bits % 64 < 6 ? numerics::bits_float(kSpecial[bits % 64]) : random.bell();
    }
  }
  return 0;
}

inline std::vector<Bf16> bf16_data(int64_t count, Kind kind, uint64_t seed) {
  Random random{seed * 0x10000000ull};
  std::vector<Bf16> data(count);
  // Truncated rather than rounded, so that signalling NaNs and every subnormal pattern come through.
  for (Bf16& x : data) x = Bf16{static_cast<uint16_t>(numerics::float_bits(draw(kind, random)) >> 16)};
  return data;
}
inline std::vector<float> float_data(int64_t count, Kind kind, uint64_t seed) {
  Random random{seed * 0x10000000ull};
  std::vector<float> data(count);
  for (float& x : data) x = draw(kind, random);
  return data;
}

// Equal bits, or the first element that differs.
template <class T>
::testing::AssertionResult same_bits(const std::vector<T>& got, const std::vector<T>& want) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << got.size() << " elements, not " << want.size();
  for (size_t i = 0; i < got.size(); ++i)
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0) {
      uint32_t g = 0, w = 0;
      std::memcpy(&g, &got[i], sizeof(T));
      std::memcpy(&w, &want[i], sizeof(T));
      return ::testing::AssertionFailure() << "element " << i << " of " << got.size() << ": got " << std::hex << g << ", want "
                                           << w;
    }
  return ::testing::AssertionSuccess();
}

// Every instruction set of this machine, with one thread and with more threads than cores.
inline std::vector<DeviceOptions> devices(ControlArm arm = ControlArm::kNone) {
  std::vector<DeviceOptions> all;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512})
    if (isa <= detect_isa())
      for (const int threads : {1, 3}) all.push_back({.threads = threads, .isa = isa, .control_arm = arm});
  return all;
}
inline std::string describe(const DeviceOptions& options) {
  return std::string(name(options.isa)) + ", " + std::to_string(options.threads) + " threads";
}

}  // namespace invar::test_rows
