// The CPU backend's layout of PackedWeights; nobody outside this folder may rely on it (README.md, "Layout").
//
// A panel is 32 outputs. For each k it holds one 64-byte line of 16 words: output j of the panel in the low half of word j,
// output j + 16 in the high half. One shift and one mask of a line give two vectors of 16 fp32 weights. Panels follow each other;
// outputs behind the last one are zeros.
#pragma once

#include <cstdint>

#include "kernels/linear/linear.h"

namespace invar::packing {

inline constexpr int64_t kPanel = 32;
inline constexpr int64_t kLineWords = 16;

inline int64_t panels(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }
inline int64_t panel_words(int64_t inputs) { return inputs * kLineWords; }
// Where output j of a panel lies in a line, in halves of words (x86 and every other machine we run on: low half first).
inline int64_t half_in_line(int64_t j) { return j % kLineWords * 2 + j / kLineWords; }
inline const uint32_t* panel(const PackedWeights& weights, int64_t index) {
  return reinterpret_cast<const uint32_t*>(weights.data()) + index * panel_words(weights.inputs());
}

}  // namespace invar::packing
