// Log-probabilities from exact integer masses: any order of adding and any sharding of the vocabulary gives the same bits.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar {

// ln(sum * 2^-40), sum >= 1, in double by a fixed series (README.md). Error below 4e-16 relative to max(1, |ln|).
double log_of_masses(uint64_t sum);

// Of a vocabulary with largest logit `max` and total mass `sum`.
struct LogSoftmax {
  float max = 0;
  double log_sum = 0;
  float of(float z) const { return static_cast<float>(static_cast<double>(numerics::sub(z, max)) - log_sum); }
};

}  // namespace invar
