// Kernels of the bench itself.
#pragma once

#include "kernels/device/device.h"

namespace invar::bench {

// Values of both signs and a few exponents, mean 0, about `scale` in size; a function of index and seed.
void fill_values(const Device& device, Bf16* values, int64_t count, uint64_t seed, float scale);
// Reads `bytes` once and writes nothing (`sink`: 4 bytes that it might write): the ceiling of whatever streams weights.
void read_plainly(const Device& device, const std::byte* data, size_t bytes, int blocks, std::byte* sink);

}  // namespace invar::bench
