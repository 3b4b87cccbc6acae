// Layout of `portable` weights on the GPU. A panel is 64 outputs. For each pair of k it has one line of 64 words: word j belongs
// to output j, k in its low half, k + 1 in the high half. So 16 lanes that read 16 bytes each have one line, four outputs a lane;
// a leaf of a panel is contiguous. Lines behind the last k (pairs come in eights) and outputs behind the last one are zeros.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::cuda::portable {

inline constexpr int64_t kPanel = 64;
inline constexpr int64_t kPanelStep = 16;  // k come in multiples of this

INVAR_HD int64_t panels(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }
INVAR_HD int64_t panel_lines(int64_t inputs) { return (inputs + kPanelStep - 1) / kPanelStep * (kPanelStep / 2); }
// In words.
INVAR_HD int64_t panel_words(int64_t inputs) { return panel_lines(inputs) * kPanel; }
INVAR_HD int64_t word_of(int64_t inputs, int64_t output, int64_t k) {
  return output / kPanel * panel_words(inputs) + k / 2 * kPanel + output % kPanel;
}

}  // namespace invar::cuda::portable
