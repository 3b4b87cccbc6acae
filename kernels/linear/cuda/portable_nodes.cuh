// What becomes of the folded spans of an output: the tree's nodes, or bias and rounding. For CUDA sources of `portable` only.
#pragma once

#include "kernels/linear/cuda/portable_target.h"

namespace invar::cuda::portable {

__device__ inline void store_column(const Target& t, int64_t m, int64_t n, float value) {
  if (t.bias) value = numerics::add(value, numerics::widen(t.bias[n]));
  if (t.y)
    t.y[m * t.y_stride + n] = numerics::bf(value);
  else
    t.y_fp32[m * t.y_stride + n] = value;
}

// The tree over the segments of one output: takes their values in ascending order, keeps the operands that wait and writes the
// nodes. A subtree whose segments are all empty is skipped, not added.
class TreeOfSegments {
 public:
  // `there`: whether the output exists; otherwise nothing is written.
  __device__ TreeOfSegments(const Target& target, int64_t m, int64_t n, bool there)
      : target_(target), to_(target.partials + m * target.outputs + n), there_(there) {}

  __device__ void take(int segment, float value) {
    if (!(target_.held >> segment & 1)) return;
    for (int level = 0, index = segment; level <= 3; ++level, index /= 2) {
      for (int node = 0; node < target_.nodes; ++node)
        if (target_.level[node] == level && target_.index[node] == index) {
          if (there_) to_[node * target_.node_stride] = value;
          return;
        }
      if (!(target_.held & segments_of(level, index ^ 1))) continue;
      // Named one by one: an index would move them to memory.
      if (index % 2 == 0) {
        if (level == 0) waiting0_ = value;
        if (level == 1) waiting1_ = value;
        if (level == 2) waiting2_ = value;
        return;
      }
      value = numerics::add(level == 0 ? waiting0_ : level == 1 ? waiting1_ : waiting2_, value);
    }
  }

  __device__ static uint32_t segments_of(int level, int index) { return ((1u << (1 << level)) - 1) << (index << level); }

 private:
  const Target& target_;
  float* const to_;
  const bool there_;
  float waiting0_ = 0.0f, waiting1_ = 0.0f, waiting2_ = 0.0f;
};

}  // namespace invar::cuda::portable
