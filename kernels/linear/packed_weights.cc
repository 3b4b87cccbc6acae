#include <algorithm>
#include <cassert>

#include "kernels/linear/packing.h"

namespace invar {

PackedWeights::PackedWeights(const Device&, int64_t outputs, int64_t inputs)
    : buffer_(Buffer::lasting(static_cast<size_t>(packing::panels(outputs) * packing::panel_words(inputs)) * sizeof(uint32_t))),
      outputs_(outputs),
      inputs_(inputs) {}

void PackedWeights::pack_rows(int64_t first_output, const Bf16* rows, int64_t count, int64_t row_stride) {
  assert(first_output >= 0 && first_output + count <= outputs_);
  constexpr int64_t kBlock = 64;  // k at a time: 64 lines stay in the first cache while the rows of a panel fill them
  auto* halves = buffer_.as<uint16_t>();
  for (int64_t n = first_output; n < first_output + count;) {
    const int64_t panel = n / packing::kPanel;
    const int64_t end = std::min(first_output + count, (panel + 1) * packing::kPanel);
    uint16_t* out = halves + panel * packing::panel_words(inputs_) * 2;
    for (int64_t k0 = 0; k0 < inputs_; k0 += kBlock) {
      const int64_t k1 = std::min(inputs_, k0 + kBlock);
      for (int64_t row = n; row < end; ++row) {
        const Bf16* from = rows + (row - first_output) * row_stride;
        uint16_t* to = out + packing::half_in_line(row % packing::kPanel);
        for (int64_t k = k0; k < k1; ++k) to[k * packing::kPanel] = from[k].bits;
      }
    }
    n = end;
  }
}

Bf16 PackedWeights::at(int64_t output, int64_t input) const {
  const int64_t panel = output / packing::kPanel;
  return Bf16{buffer_.as<uint16_t>()[panel * packing::panel_words(inputs_) * 2 + input * packing::kPanel +
                                     packing::half_in_line(output % packing::kPanel)]};
}

}  // namespace invar
