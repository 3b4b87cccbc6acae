#include "kernels/logits/log_softmax.h"

#include <cstring>

namespace invar {

double log_of_masses(uint64_t sum) {
  const auto x = static_cast<double>(sum);  // RN; a sum below 2^53 is exact
  uint64_t u;
  std::memcpy(&u, &x, 8);
  int exponent = static_cast<int>(u >> 52) - 1023;
  uint64_t fraction = (u & 0xfffffffffffffull) | 0x3ff0000000000000ull;
  if ((u & 0xfffffffffffffull) > 0x6a09e667f3bcdull) {  // m in [sqrt(1/2), sqrt(2)]
    fraction -= uint64_t{1} << 52;
    ++exponent;
  }
  double m;
  std::memcpy(&m, &fraction, 8);
  // ln m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716: the terms behind s^23 are below 2^-60.
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double series = 1.0 / 23.0;
  for (int k = 21; k >= 3; k -= 2) series = __builtin_fma(series, s2, 1.0 / k);
  const double ln_m = __builtin_fma(2.0 * s * s2, series, 2.0 * s);
  constexpr double kLn2High = 0x1.62e42fefa39efp-1, kLn2Low = 0x1.abc9e3b39803fp-56;
  const double e = exponent - numerics::kMassBits;
  return __builtin_fma(e, kLn2High, __builtin_fma(e, kLn2Low, ln_m));
}

}  // namespace invar
