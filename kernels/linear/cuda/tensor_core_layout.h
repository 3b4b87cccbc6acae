// Where an element of packed weights lies (tensor_core_linear.h, "Layout").
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::cuda::tc {

inline constexpr int64_t kBlockInputs = 64;    // inputs of a line: 128 bytes, the span of the swizzle
inline constexpr int64_t kOutputPadding = 64;  // the rows of one wgmma

INVAR_HD int64_t padded_outputs(int64_t outputs) { return (outputs + kOutputPadding - 1) / kOutputPadding * kOutputPadding; }
INVAR_HD int64_t input_blocks(int64_t inputs) { return (inputs + kBlockInputs - 1) / kBlockInputs; }
// In elements. `padded` = padded_outputs(outputs).
INVAR_HD int64_t packed_piece(int64_t padded, int64_t output, int64_t block, int64_t piece) {
  return (block * padded + output) * kBlockInputs + (piece ^ (output & 7)) * 8;
}
INVAR_HD int64_t packed_element(int64_t padded, int64_t output, int64_t input) {
  return packed_piece(padded, output, input / kBlockInputs, input % kBlockInputs / 8) + input % 8;
}

}  // namespace invar::cuda::tc
