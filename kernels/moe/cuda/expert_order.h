#pragma once

#include "kernels/moe/expert_order.h"

namespace invar::cuda {

void order_by_expert(const Device& device, const ExpertOrder& problem);

}  // namespace invar::cuda
