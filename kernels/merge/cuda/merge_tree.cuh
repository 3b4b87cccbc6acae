// The tree over the segments in registers. A node stands in the place of its first segment; its other segments are missing. So
// the whole tree, with missing operands skipped, gives the root of any set of disjoint nodes, and which places are taken is the
// same for every element: the choices below are uniform.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::cuda {

struct TreeSources {
  const float* values[numerics::kSegments];  // by place
  unsigned present;                          // bit i: place i is taken
};

// The tree over kNodes nodes of one level that cover all segments: what equal ranks ship. No choices at all, so the loads of a
// thread can all be under way before the first sum.
template <int kNodes, int kCount>
__device__ inline void fold_level(float (&v)[kNodes][kCount]) {
#pragma unroll
  for (int span = 1; span < kNodes; span *= 2) {
#pragma unroll
    for (int i = 0; i < kNodes; i += 2 * span) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) v[i][k] = numerics::add(v[i][k], v[i + span][k]);
    }
  }
}

// Eight loads, then seven additions, at most. kCount elements at once, to have the loads of a thread under way together.
// `load(i, v)` fills v[kCount] with the values at place i.
template <int kCount, class Load>
__device__ inline void tree_roots(unsigned present, const Load& load, float (&root)[kCount]) {
  constexpr int kPlaces = numerics::kSegments;
  float v[kPlaces][kCount];
#pragma unroll
  for (int i = 0; i < kPlaces; ++i) {
    if (present >> i & 1) {
      load(i, v[i]);
    } else {
#pragma unroll
      for (int k = 0; k < kCount; ++k) v[i][k] = 0.0f;  // never added
    }
  }
#pragma unroll
  for (int span = 1; span < kPlaces; span *= 2) {
#pragma unroll
    for (int i = 0; i < kPlaces; i += 2 * span) {
      const unsigned side = (1u << span) - 1, left = present >> i & side, right = present >> (i + span) & side;
      if (!right) continue;
#pragma unroll
      for (int k = 0; k < kCount; ++k) v[i][k] = left ? numerics::add(v[i][k], v[i + span][k]) : v[i + span][k];
    }
  }
#pragma unroll
  for (int k = 0; k < kCount; ++k) root[k] = v[0][k];
}

// The control arm: left to right.
template <int kCount, class Load>
__device__ inline void listed_sums(unsigned present, const Load& load, float (&sum)[kCount]) {
  float v[kCount];
#pragma unroll
  for (int k = 0; k < kCount; ++k) sum[k] = 0.0f;
#pragma unroll
  for (int i = 0; i < numerics::kSegments; ++i) {
    if (!(present >> i & 1)) continue;
    load(i, v);
#pragma unroll
    for (int k = 0; k < kCount; ++k) sum[k] = i == 0 ? v[k] : numerics::add(sum[k], v[k]);  // place 0 is taken if any is
  }
}

}  // namespace invar::cuda
