// Rows of packed weights, unpacked: the embedding lookup of a table that also serves as the head's weights (clause 1: a copy).
#pragma once

#include "kernels/linear/linear.h"

namespace invar {

// y[r * y_stride + k] = weights[ids[r] - first_id][k] for k in [0, inputs). A row whose id the weights do not hold stays as it
// is: a rank has a range of the vocabulary.
struct GatherRows {
  const PackedWeights* weights = nullptr;
  const int32_t* ids = nullptr;  // [rows]
  int64_t first_id = 0;          // id of the weights' first row
  int64_t rows = 0;
  Bf16* y = nullptr;
  int64_t y_stride = 0;
};
void gather_rows(const Device& device, const GatherRows& problem);

}  // namespace invar
