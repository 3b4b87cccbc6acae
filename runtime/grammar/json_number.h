// Numbers within bounds, digit by digit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/grammar/network.h"

namespace invar::grammar {

// Integers from `least` to `most`, without "-0" and without leading zeros.
void add_integers(NetworkBuilder& builder, int32_t from, int64_t least, int64_t most, int32_t to);

// A finite decimal number, exactly.
struct Decimal {
  bool negative = false;    // never for 0
  std::string whole = "0";  // digits before the point, no leading zero but in "0"
  std::string fraction;     // digits behind it, no trailing zero
  bool zero() const { return whole == "0" && fraction.empty(); }
};
// Of a JSON number; nothing if it is not one or has an exponent beyond 40 in size.
std::optional<Decimal> decimal_of(std::string_view number);

struct DecimalBound {
  Decimal value;
  bool exclusive = false;
};
// Numbers without an exponent, of at most 15 digits in all, so that no two are the same double.
void add_decimals(NetworkBuilder& builder, int32_t from, const std::optional<DecimalBound>& least,
                  const std::optional<DecimalBound>& most, int32_t to);

}  // namespace invar::grammar
