// The CUDA backend of attention.h, as its host code calls it.
#pragma once

#include <cstdint>

#include "kernels/attention/attention.h"

namespace invar::cuda {

void attention(const Device& device, const Attention& problem);
// The kernel that takes any shape, also where another one would be used: what the others are compared with on long contexts.
void attention_generic(const Device& device, const Attention& problem);
void write_pages(const Device& device, const KvPages& pages, int64_t rows, const Bf16* k, const Bf16* v, int64_t stride,
                 const int64_t* slots);
int64_t multiprocessors(const Device& device);

}  // namespace invar::cuda
