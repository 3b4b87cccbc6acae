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

// The tree over the segments of one output: takes the values of those held in ascending order, keeps the operands that wait and
// writes the nodes. A subtree whose segments are all empty is skipped, not added.
class TreeOfSegments {
 public:
  // `there`: whether the output exists; otherwise nothing is written.
  __device__ TreeOfSegments(const Target& target, int64_t m, int64_t n, bool there)
      : target_(target), to_(target.partials + m * target.outputs + n), there_(there) {}

  __device__ void take(int segment, float value) {
    const uint32_t climb = target_.climb[segment];
    if (ends(climb & 15, &value, &waiting0_)) return;
    if (ends(climb >> 4 & 15, &value, &waiting1_)) return;
    if (ends(climb >> 8 & 15, &value, &waiting2_)) return;
    ends(climb >> 12 & 15, &value, &waiting2_);  // the root: passed by or stored
  }

 private:
  // One level; `waiting` is its operand. Named one by one, since an index would move them to memory.
  __device__ bool ends(uint32_t action, float* value, float* waiting) {
    if (action >= kStore && there_) to_[(action - kStore) * target_.node_stride] = *value;
    if (action == kWait) *waiting = *value;
    if (action == kAdd) *value = numerics::add(*waiting, *value);
    return action == kWait || action >= kStore;
  }

  const Target& target_;
  float* const to_;
  const bool there_;
  float waiting0_ = 0.0f, waiting1_ = 0.0f, waiting2_ = 0.0f;
};

}  // namespace invar::cuda::portable
