// The way from tokens to the rows of their experts, on the device: which row of which expert is whose (clause 14, moves only).
#pragma once

#include <cstdint>

#include "kernels/device/device.h"
#include "kernels/moe/router.h"

namespace invar {

// A token has a row for each of its experts. Rows lie by (expert, token) ascending, a function of `ids` alone. Gather the rows'
// values with token_of (kernels/rows) and sum what comes back with row_of (Combine).
struct ExpertOrder {
  int64_t rows = 0;  // tokens
  int64_t top_k = 0;
  int64_t experts = 0;
  const int32_t* ids = nullptr;  // [rows][top_k] in [0, experts), ascending in a row, no expert twice
  int64_t* offsets = nullptr;    // [experts + 1]: the rows of expert e are [offsets[e], offsets[e + 1])
  int64_t* row_of = nullptr;     // [rows][top_k]: where the row of token r for its i-th expert lies
  int32_t* token_of = nullptr;   // [rows * top_k]: the token that a row belongs to
};
void order_by_expert(const Device& device, const ExpertOrder& problem);
// route(), then order_by_expert() of the ids it chose (order.ids == router.ids): one launch where there are few tokens.
void route_in_order(const Device& device, const Router& router, const ExpertOrder& order);

}  // namespace invar
