// Router and combine on a GPU; see kernels/moe/router.h.
#pragma once

#include "kernels/moe/expert_order.h"
#include "kernels/moe/router.h"

namespace invar::cuda {

void route(const Device& device, const Router& problem);
// False, and nothing is done: too many for one block.
bool route_in_order(const Device& device, const Router& problem, const ExpertOrder& order);
void combine(const Device& device, const Combine& problem);

}  // namespace invar::cuda
