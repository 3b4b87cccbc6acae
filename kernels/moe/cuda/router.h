// Router and combine on a GPU; see kernels/moe/router.h.
#pragma once

#include "kernels/moe/router.h"

namespace invar::cuda {

void route(const Device& device, const Router& problem);
void combine(const Device& device, const Combine& problem);

}  // namespace invar::cuda
