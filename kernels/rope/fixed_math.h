// Elementary functions in double that give the same bits on every IEEE machine: only + - * / and fma, no libm (clause 6).
//
// A libm may change its last bit with its version; the rotary tables are part of the contract, so they must not.
#pragma once

namespace invar::fixed_math {

// An unevaluated sum hi + lo with |lo| <= ulp(hi) / 2: about 106 bits.
struct Pair {
  double hi = 0;
  double lo = 0;
};

Pair sum(Pair a, Pair b);
Pair product(Pair a, Pair b);
Pair quotient(Pair a, Pair b);

// x: positive, finite, normal. Relative error below 2^-95 (absolute near x = 1).
Pair natural_log(double x);
Pair log2(double x);
// 2^y for -1000 <= y <= 1000, rounded once from about 100 bits.
double exp2(Pair y);
// base^exponent for a positive, finite, normal base; the result must be normal. Error below 0.51 ulp.
double power(double base, Pair exponent);

struct SinCos {
  double sine;
  double cosine;
};
// |x| < 2^50. Relative error of each below 4e-16 (of arguments that are floats: no float is near enough a multiple of pi/2 to
// lose more).
SinCos sin_cos(double x);

}  // namespace invar::fixed_math
