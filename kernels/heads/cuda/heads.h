// The heads of a row on a GPU, in one launch.
#pragma once

#include "kernels/heads/heads.h"

namespace invar::cuda {

// False, and nothing done: the shape or the alignment does not allow 16-byte pieces (head_dim and rotated half multiples of 8,
// head_dim at most 256).
bool prepare_heads(const Device& device, const PrepareHeads& problem);

}  // namespace invar::cuda
