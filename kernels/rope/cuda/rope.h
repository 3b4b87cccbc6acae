// The rotation on a GPU.
#pragma once

#include "kernels/rope/rope.h"

namespace invar::cuda {

void rope(const Device& device, const Rope& problem);

}  // namespace invar::cuda
