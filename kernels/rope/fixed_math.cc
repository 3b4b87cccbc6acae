#include "kernels/rope/fixed_math.h"

#include <cstdint>
#include <cstring>

namespace invar::fixed_math {
namespace {

constexpr Pair kLn2 = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56};
constexpr Pair kLog2e = {0x1.71547652b82fep+0, 0x1.777d0ffda0d24p-56};
constexpr double kHalfPi[3] = {0x1.921fb54442d18p+0, 0x1.1a62633145c07p-54, -0x1.f1976b7ed8fbcp-110};
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kRound = 0x1.8p+52;  // adding it rounds |x| < 2^51 to an integer, ties to even

double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

// Exact a + b, any order of magnitudes.
Pair exact_sum(double a, double b) {
  const double s = a + b;
  const double t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}
// Exact a + b for |a| >= |b| or a = 0.
Pair renormalise(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}
Pair exact_product(double a, double b) {
  const double p = a * b;
  return {p, fma(a, b, -p)};
}

double power_of_two(int64_t n) {  // -1022 <= n <= 1023
  const uint64_t bits = static_cast<uint64_t>(n + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, 8);
  return x;
}

}  // namespace

Pair sum(Pair a, Pair b) {
  const Pair high = exact_sum(a.hi, b.hi), low = exact_sum(a.lo, b.lo);
  const Pair s = renormalise(high.hi, high.lo + low.hi);
  return renormalise(s.hi, s.lo + low.lo);
}

Pair product(Pair a, Pair b) {
  const Pair p = exact_product(a.hi, b.hi);
  return renormalise(p.hi, p.lo + fma(a.hi, b.lo, a.lo * b.hi));
}

Pair quotient(Pair a, Pair b) {
  const double first = a.hi / b.hi;
  const Pair rest = sum(a, product(b, {-first, 0}));
  const double second = rest.hi / b.hi;
  const Pair last = sum(rest, product(b, {-second, 0}));
  return sum(renormalise(first, second), {last.hi / b.hi, 0});
}

Pair natural_log(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, 8);
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)): the subtraction borrows from the exponent exactly when m would be below.
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdull;
  const int64_t e = static_cast<int64_t>(bits - kSqrtHalf) >> 52;
  const uint64_t m_bits = bits - (static_cast<uint64_t>(e) << 52);
  double m;
  std::memcpy(&m, &m_bits, 8);
  // ln m = 2 atanh(s) = 2 s (1 + s^2/3 + s^4/5 + ...), s = (m - 1) / (m + 1); |s| < 0.172, so 22 terms leave 2^-110.
  const Pair s = quotient({m - 1, 0}, exact_sum(m, 1));
  const Pair s2 = product(s, s);
  Pair series;
  for (int k = 21; k >= 0; --k) series = sum(product(series, s2), quotient({1, 0}, {2.0 * k + 1, 0}));
  const Pair ln_m = product({2 * s.hi, 2 * s.lo}, series);
  return sum(product({static_cast<double>(e), 0}, kLn2), ln_m);
}

Pair log2(double x) { return product(natural_log(x), kLog2e); }

double exp2(Pair y) {
  const double n = (y.hi + kRound) - kRound;
  const Pair r = product(sum({y.hi - n, 0}, {y.lo, 0}), kLn2);
  // e^r = 1 + r (1 + r/2 (1 + r/3 (...))), |r| < 0.35: 24 factors leave 2^-115.
  Pair e = {1, 0};
  for (int k = 24; k >= 1; --k) e = sum({1, 0}, quotient(product(r, e), {static_cast<double>(k), 0}));
  // e.hi is the sum rounded to 53 bits; the scaling is exact while the result is normal.
  const auto whole = static_cast<int64_t>(n);
  return e.hi * power_of_two(whole / 2) * power_of_two(whole - whole / 2);
}

double power(double base, Pair exponent) { return exp2(product(exponent, log2(base))); }

SinCos sin_cos(double x) {
  // r = x - n pi/2 as hi + lo. x and n * kHalfPi[0] lie within a factor of two of each other (or n = 0), so their difference
  // is exact; the products' low parts and the further words of pi/2 follow in order of size.
  const double n = (x * kTwoOverPi + kRound) - kRound;
  const Pair p0 = exact_product(n, kHalfPi[0]), p1 = exact_product(n, kHalfPi[1]);
  Pair r = exact_sum(x - p0.hi, -p0.lo);
  r = sum(r, {-p1.hi, -p1.lo});
  r = sum(r, {-(n * kHalfPi[2]), 0});
  const double z = r.hi * r.hi;
  // Taylor series; the first dropped terms are below 2^-70 at pi/4.
  constexpr double kSine[9] = {-1.0 / 6,
                               1.0 / 120,
                               -1.0 / 5040,
                               1.0 / 362880,
                               -1.0 / 39916800,
                               1.0 / 6227020800,
                               -1.0 / 1307674368000,
                               1.0 / 355687428096000,
                               -1.0 / 121645100408832000};
  constexpr double kCosine[9] = {1.0 / 24,
                                 -1.0 / 720,
                                 1.0 / 40320,
                                 -1.0 / 3628800,
                                 1.0 / 479001600,
                                 -1.0 / 87178291200,
                                 1.0 / 20922789888000,
                                 -1.0 / 6402373705728000,
                                 1.0 / 2432902008176640000};
  double s = kSine[8], c = kCosine[8];
  for (int i = 7; i >= 0; --i) {
    s = fma(s, z, kSine[i]);
    c = fma(c, z, kCosine[i]);
  }
  // sin(hi + lo) = hi + (hi^3 S + lo cos(hi)); cos(hi + lo) = (1 - z/2) + (z^2 C + what 1 - z/2 lost - hi lo).
  const double half = 0.5 * z, one_less = 1 - half;
  const double sine = r.hi + fma(z * r.hi, s, r.lo * one_less);
  const double cosine = one_less + (fma(z * z, c, (1 - one_less) - half) - r.hi * r.lo);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

}  // namespace invar::fixed_math
