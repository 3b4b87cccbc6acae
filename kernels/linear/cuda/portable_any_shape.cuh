// The schedule of `portable` for every shape, cut and control arm: a thread walks the whole order of its output. Slow.
#pragma once

#include "kernels/linear/cuda/portable_layout.h"
#include "kernels/linear/cuda/portable_nodes.cuh"
#include "kernels/linear/cuda/portable_order.h"

namespace invar::cuda::portable {

inline constexpr int kAnyShapeRows = 4;  // rows of a block, 64 outputs each

__global__ void __launch_bounds__(kAnyShapeRows * 64)
    any_shape(const __grid_constant__ LeafOrder order, const __grid_constant__ Target target, const Bf16* x, int64_t x_stride,
              const uint32_t* weights, int64_t inputs) {
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int64_t n = blockIdx.x * kPanel + threadIdx.x % 64, m = blockIdx.y * int64_t{kAnyShapeRows} + threadIdx.x / 64;
  if (n >= target.outputs || m >= target.rows) return;
  const uint32_t* words = weights + word_of(inputs, n, 0);
  const Bf16* row = x + m * x_stride;
  TreeOfSegments tree(target, m, n, true);
  for (int32_t s = 0; s < order.spans; ++s) {
    float value = 0.0f;
    for (int32_t i = order.first_leaf[s]; i < order.first_leaf[s + 1]; ++i) {
      const LeafRange range = order.range(s, i);
      if (range.begin == range.end) continue;
      float acc = 0.0f;
      for (int32_t j = 0; j < range.end - range.begin; ++j) {
        const int32_t k = order.chain(range, j);
        const Bf16 w{static_cast<uint16_t>(words[k / 2 * kPanel] >> (k % 2 * 16))};
        acc = numerics::fma(numerics::widen(row[k]), numerics::widen(w), acc);
      }
      value = range.begin == order.begin[s] ? acc : numerics::add(value, acc);
    }
    if (!target.row_parallel) {
      store_column(target, m, n, value);
    } else if (target.held >> s & 1) {
      tree.take(s, value);
    }
  }
}

}  // namespace invar::cuda::portable
