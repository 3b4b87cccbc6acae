// A tile of a tree of four or eight leaves in three sets of accumulators: sums are formed while the next leaf is multiplied. Of
// eight leaves the first four's sum waits in shared memory, which registers do not have room for.
#pragma once

#include "kernels/linear/cuda/tensor_core_rows_out.cuh"
#include "kernels/numerics.h"

namespace invar::cuda::tc {

// to = a + b.
template <int kSize>
__device__ __forceinline__ void add_sets(float (&to)[kSize], const float (&a)[kSize], const float (&b)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) to[i] = numerics::add(a[i], b[i]);
}

// A thread's sums: value i at sums + i / 4 * 512.
template <int kSize>
__device__ __forceinline__ void store_sums(uint32_t sums, const float (&d)[kSize]) {
#pragma unroll
  for (int j = 0; j < kSize; j += 4) ptx::store_shared_float4(sums + j * 128, {d[j], d[j + 1], d[j + 2], d[j + 3]});
}
// d = sums + d.
template <int kSize>
__device__ __forceinline__ void add_sums(uint32_t sums, float (&d)[kSize]) {
#pragma unroll
  for (int j = 0; j < kSize; j += 4) {
    const float4 v = ptx::load_shared_float4(sums + j * 128);
    d[j] = numerics::add(v.x, d[j]);
    d[j + 1] = numerics::add(v.y, d[j + 1]);
    d[j + 2] = numerics::add(v.z, d[j + 2]);
    d[j + 3] = numerics::add(v.w, d[j + 3]);
  }
}

// Four leaves. The first one's first block is under way in acc; no multiplication is left under way. The sum of the four is
// add_sets(third, other, third), which is left to be formed: acc is free, and what comes next may begin there before.
//   begin(d)        the next leaf's first block is under way in d, and all before it is complete
//   go_on(d, leaf)  the rest of that leaf
//   drain()         all is complete
template <int kSize, class Begin, class GoOn, class Drain>
__device__ __forceinline__ void multiply_four(float (&acc)[kSize], float (&other)[kSize], float (&third)[kSize], int first_leaf,
                                              const Begin& begin, const GoOn& go_on, const Drain& drain) {
  go_on(acc, first_leaf);
  begin(other);
  go_on(other, first_leaf + 1);
  begin(third);
  ptx::pin(acc);
  ptx::pin(other);
  add_sets(other, acc, other);
  go_on(third, first_leaf + 2);
  begin(acc);
  go_on(acc, first_leaf + 3);
  drain();
  ptx::pin(third);
  ptx::pin(acc);
  add_sets(third, third, acc);
}

// Four or eight leaves; of eight, the first four's sum waits in shared memory. finish_tree makes the root, in third.
template <int kLeaves, int kSize, class Begin, class GoOn, class Drain>
__device__ __forceinline__ void multiply_tree(float (&acc)[kSize], float (&other)[kSize], float (&third)[kSize], uint32_t sums,
                                              const Begin& begin, const GoOn& go_on, const Drain& drain) {
  static_assert(kLeaves == 4 || kLeaves == 8);
  multiply_four(acc, other, third, 0, begin, go_on, drain);
  if constexpr (kLeaves == 8) {
    begin(acc);
    add_sets(third, other, third);
    boxes_are_free();
    store_sums(sums, third);
    multiply_four(acc, other, third, 4, begin, go_on, drain);
  }
}
template <int kLeaves, int kSize>
__device__ __forceinline__ void finish_tree(const float (&other)[kSize], float (&third)[kSize], uint32_t sums) {
  add_sets(third, other, third);
  if constexpr (kLeaves == 8) add_sums(sums, third);
}

}  // namespace invar::cuda::tc
