// Where the results of a `portable` linear go; by value in the parameters of a launch.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::cuda::portable {

inline constexpr int kMostNodes = numerics::kSegments;

struct Target {
  using Bf16 = numerics::Bf16;
  int64_t rows = 0, outputs = 0;
  bool row_parallel = false;
  // Column-parallel: exactly one of y and y_fp32.
  const Bf16* bias = nullptr;
  Bf16* y = nullptr;
  float* y_fp32 = nullptr;
  int64_t y_stride = 0;
  // Row-parallel.
  float* partials = nullptr;
  int64_t node_stride = 0;
  uint32_t held = 0;  // bit s: segment s is here and not empty
  int nodes = 0;
  int8_t level[kMostNodes] = {}, index[kMostNodes] = {};
};

}  // namespace invar::cuda::portable
