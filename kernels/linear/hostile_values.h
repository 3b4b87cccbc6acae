// Inputs for tests that go where rounding, alignment and special cases are. Reproducible: everything comes from a seed.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/numerics.h"

namespace invar::hostile {

enum class Kind { kOrdinary, kWide, kCancelling, kSubnormal, kZeros, kTies, kFull, kOverflowing, kNonFinite, kAnyBits };
inline constexpr Kind kKinds[] = {Kind::kOrdinary, Kind::kWide, Kind::kCancelling,  Kind::kSubnormal, Kind::kZeros,
                                  Kind::kTies,     Kind::kFull, Kind::kOverflowing, Kind::kNonFinite, Kind::kAnyBits};

class Values {
 public:
  explicit Values(uint64_t seed) : state_(seed) {}

  uint32_t next() { return static_cast<uint32_t>(numerics::mix64(++state_)); }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }

  numerics::Bf16 bf16(Kind kind, int64_t index) {
    const uint32_t r = next();
    const uint16_t sign = static_cast<uint16_t>(r << 15), mantissa = (r >> 1) & 127;
    const auto field = [&](uint32_t low, uint32_t high) {
      return static_cast<uint16_t>((low + (r >> 8) % (high - low + 1)) << 7);
    };
    const auto make = [](uint32_t bits) { return numerics::Bf16{static_cast<uint16_t>(bits)}; };
    switch (kind) {
      case Kind::kOrdinary:
        return make(sign | field(118, 128) | mantissa);
      case Kind::kWide:
        return make(sign | field(90, 152) | mantissa);
      // Neighbours of almost equal magnitude: sums fall far below their terms.
      case Kind::kCancelling:
        return make((index & 1) << 15 | 127 << 7 | (r & 3));
      case Kind::kSubnormal:
        return make(sign | field(0, 2) | mantissa);
      case Kind::kZeros:
        return make(r % 3 ? sign : sign | field(120, 128) | mantissa);
      case Kind::kTies:
        return make(sign | field(119, 127) | (r >> 16 & 1) << 6);
      // The largest mantissas, one exponent, mostly one sign: the integer sums at their limit.
      case Kind::kFull:
        return make(((r >> 16) % 64 == 0 ? 0x8000 : 0) | 127 << 7 | 127);
      case Kind::kOverflowing:
        return make(sign | field(180, 254) | mantissa);
      case Kind::kNonFinite:
        return make((r >> 8) % 97 == 0 ? sign | 0x7f80 | (r & 64) : sign | field(118, 128) | mantissa);
      case Kind::kAnyBits:
        return make(r >> 8 & 0xffff);
    }
    return make(0);
  }

  std::vector<numerics::Bf16> vector(Kind kind, int64_t count) {
    std::vector<numerics::Bf16> values(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) values[i] = bf16(kind, i);
    return values;
  }

 private:
  uint64_t state_;
};

}  // namespace invar::hostile
