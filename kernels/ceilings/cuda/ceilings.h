// What this GPU can do at most, measured in the same run as what is compared with it. For benches only.
#pragma once

#include "kernels/device/device.h"

namespace invar::ceilings {

// Bytes per second of a kernel that only reads, over an area no cache holds.
double cuda_read_rate(const Device& device);
// Operations per second of cuBLASLt's best algorithm on a bf16 product of 8192 x 8192 x 8192: of one call, and over a quarter of
// a second, as long as a long prompt takes, when the card has come to its power limit.
struct MatrixRates {
  double once = 0, held = 0;
};
MatrixRates cuda_matrix_rates(const Device& device);

// Values of both signs and a few exponents, mean 0, about `scale` in size; a function of index and seed. Power, and with it the
// clock, depends on what is multiplied.
void fill_values(const Device& device, Bf16* values, int64_t count, uint64_t seed, float scale);

}  // namespace invar::ceilings
