// A tile of a tree of four or eight leaves in three sets of accumulators: sums of two are formed while the next leaf is
// multiplied. Of eight leaves the first two's sum, then the first four's, waits in shared memory, which registers do not have
// room for.
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

// The first leaf's first block is under way in acc; the root comes to be in third, and no multiplication is left under way.
//   begin(d)        the next leaf's first block is under way in d, and all before it is complete
//   go_on(d, leaf)  the rest of that leaf
//   drain()         all is complete
template <int kLeaves, int kSize, class Begin, class GoOn, class Drain>
__device__ __forceinline__ void multiply_tree(float (&acc)[kSize], float (&other)[kSize], float (&third)[kSize], uint32_t sums,
                                              const Begin& begin, const GoOn& go_on, const Drain& drain) {
  static_assert(kLeaves == 4 || kLeaves == 8);
  constexpr int kLast = kLeaves - 4;
  if constexpr (kLeaves == 8) {
    go_on(acc, 0);
    begin(other);
    go_on(other, 1);
    begin(third);
    ptx::pin(acc);
    ptx::pin(other);
    add_sets(acc, acc, other);
    boxes_are_free();
    store_sums(sums, acc);
    go_on(third, 2);
    begin(other);
    go_on(other, 3);
    begin(acc);
    ptx::pin(third);
    ptx::pin(other);
    add_sets(third, third, other);
    add_sums(sums, third);
    store_sums(sums, third);
  }
  go_on(acc, kLast);
  begin(other);
  go_on(other, kLast + 1);
  begin(third);
  ptx::pin(acc);
  ptx::pin(other);
  add_sets(acc, acc, other);
  go_on(third, kLast + 2);
  begin(other);
  go_on(other, kLast + 3);
  drain();
  ptx::pin(third);
  ptx::pin(other);
  add_sets(third, third, other);
  add_sets(third, acc, third);
  if constexpr (kLeaves == 8) add_sums(sums, third);
}

// The same for eight short leaves: sums go to shared memory and back once, not twice, which a tile of a few blocks of k has
// little time for; in return all products are waited for once more. third comes to be the last four's sum, of which
// add_sums(sums, third) makes the root: the next tile may begin in acc before.
template <int kSize, class Begin, class GoOn, class Drain>
__device__ __forceinline__ void multiply_short_tree(float (&acc)[kSize], float (&other)[kSize], float (&third)[kSize],
                                                    uint32_t sums, const Begin& begin, const GoOn& go_on, const Drain& drain) {
  multiply_tree<4>(acc, other, third, sums, begin, go_on, drain);
  begin(acc);
  boxes_are_free();
  store_sums(sums, third);
  const auto of_last_four = [&](float(&d)[kSize], int leaf) { go_on(d, 4 + leaf); };
  multiply_tree<4>(acc, other, third, sums, begin, of_last_four, drain);
}

}  // namespace invar::cuda::tc
