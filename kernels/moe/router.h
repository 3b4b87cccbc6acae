// Router: which experts a token takes, and with which weights (clause 9). No token is ever dropped because of its neighbours.
#pragma once

#include <cstdint>

#include "kernels/device/device.h"

namespace invar {

enum class RouterScore : uint8_t { kSoftmax, kSigmoid };

// For each row: scores of fp32 logits [experts]; top_k by (value descending, id ascending); chosen ids ascending in `ids`, their
// weights in `weights`, renormalised over the chosen ones in ascending id if `renormalise`.
struct Router {
  int64_t rows = 0;
  int64_t experts = 0;  // at most 1024
  int64_t top_k = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool renormalise = true;
  const float* logits = nullptr;
  int32_t* ids = nullptr;    // [rows][top_k]
  float* weights = nullptr;  // [rows][top_k]
};
void route(const Device& device, const Router& problem);
void route_reference(const Router& problem);

// acc = fma(weight, row, acc) from +0 over a token's experts in ascending id, shared expert last with weight 1; y = bf(acc).
// rows_of[r * top_k + i] is the index into expert_rows of token r's i-th expert.
struct Combine {
  int64_t rows = 0;
  int64_t width = 0;
  int64_t top_k = 0;
  const Bf16* expert_rows = nullptr;  // [*][width]
  const int64_t* row_of = nullptr;    // [rows][top_k]; negative = no row (control arm with a capacity limit only)
  const float* weights = nullptr;     // [rows][top_k]
  const Bf16* shared = nullptr;       // [rows][width] or null
  Bf16* y = nullptr;                  // [rows][width]
};
void combine(const Device& device, const Combine& problem);
void combine_reference(const Combine& problem);

}  // namespace invar
