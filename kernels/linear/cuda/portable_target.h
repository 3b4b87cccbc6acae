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
  // What segment s, once folded, does on its way up: four bits a level, the lowest first (TreeAction).
  uint16_t climb[numerics::kSegments] = {};
};

// At a level of the tree: go on (the other operand is missing), wait for it, be added to the one that waits, or, from kStore on,
// be the value of node (action - kStore). Waiting and storing end the climb.
enum TreeAction : uint32_t { kPass = 0, kWait = 1, kAdd = 2, kStore = 8 };
static_assert(kStore + kMostNodes <= 16);

INVAR_HD uint32_t segments_of(int level, int index) { return ((1u << (1 << level)) - 1) << (index << level); }

}  // namespace invar::cuda::portable
