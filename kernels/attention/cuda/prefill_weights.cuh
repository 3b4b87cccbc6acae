// Scores of one block of keys to weights, by the warps whose wgmma made them (README.md, "Weights in prefill").
#pragma once

#include "kernels/attention/cuda/kernel.cuh"

namespace invar::cuda::prefill {

constexpr int kScores = kBlock / 2;  // of a block, in a thread

__device__ __forceinline__ float largest_or_nan(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

// Two rows of a thread: l / 4 and + 8 of its warp's 16. Value i of the scores belongs to row i / 2 mod 2, key i / 4 * 8 + 2t + i
// mod 2.
struct Rows {
  int first[2], end[2];  // keys the vector sees
  float reference[2], offset[2];
  bool moved;      // the reference of some row of the warp, in the newest block; then
  float scale[2];  // o and the denominator are to be multiplied by this before that block's values
};

__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}

// t of every score of a block, and whether one of them, in any thread of the warp, is outside of what attention_weight_inside
// takes.
__device__ __forceinline__ bool exponents_of_block(const float (&s)[kScores], const float (&offset)[2], float step,
                                                   float (&t)[kScores]) {
  uint32_t bits[4] = {};  // four chains: one would be as long as everything else
#pragma unroll
  for (int i = 0; i < kScores; i += 8) {
#pragma unroll
    for (int k = i; k < i + 8; ++k) t[k] = numerics::fma(s[k], step, offset[k / 2 % 2]);
#pragma unroll
    for (int k = 0; k < 4; ++k) bits[k] |= __float_as_uint(t[i + k]) | __float_as_uint(t[i + k + 4]);
  }
  return __any_sync(~0u, ((bits[0] | bits[1] | bits[2] | bits[3]) & numerics::kAttentionOutside) != 0);
}

// What exponents_of_block cannot do: a reference that moves (always in a split's first block, where t is infinite), keys that are
// not seen (their t becomes +0), weights of +0. True if some t needs the total function even so: NaN, or scores so large that
// their exponents are rounded.
__device__ __forceinline__ bool settle_block(float (&s)[kScores], Rows& rows, int block_key, bool masked, float c, float step,
                                             float (&t)[kScores]) {
  const int lane = threadIdx.x % 4 * 2;
  int begin[2];
  uint32_t seen[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) begin[r] = rows.first[r] - block_key - lane, seen[r] = rows.end[r] - rows.first[r];
  const auto visible = [&](int i) { return static_cast<uint32_t>(i / 4 * 8 + i % 2 - begin[i / 2 % 2]) < seen[i / 2 % 2]; };
  if (masked) {
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] = visible(i) ? s[i] : -kInfinity;
  }
  float largest[2][2];  // two chains a row
#pragma unroll
  for (int i = 0; i < kScores; ++i)
    largest[i / 2 % 2][i % 2] = i < 4 ? fmaxf(s[i], -kInfinity) : fmaxf(largest[i / 2 % 2][i % 2], s[i]);
  bool moved = false;
#pragma unroll
  for (int r = 0; r < 2; ++r) largest[r][0] = fmaxf(largest[r][0], largest[r][1]);
#pragma unroll
  for (int k = 1; k < 4; k *= 2)
#pragma unroll
    for (int r = 0; r < 2; ++r) largest[r][0] = fmaxf(largest[r][0], __shfl_xor_sync(~0u, largest[r][0], k));
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool sees = (rows.first[r] < block_key + kBlock) & (rows.end[r] > block_key);
    const bool moves = sees & attention_order::moves(largest[r][0], step, rows.reference[r]);
    const float reference = moves ? attention_order::moved_reference(largest[r][0], c, rows.reference[r]) : rows.reference[r];
    rows.scale[r] = moves ? attention_order::rescale(rows.reference[r], reference) : 1.0f;
    rows.reference[r] = reference;
    rows.offset[r] = numerics::attention_offset(reference);
    moved |= moves;
  }
  rows.moved = __any_sync(~0u, moved);
  if (!exponents_of_block(s, rows.offset, step, t) && !masked) return false;
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    t[i] = t[i] < numerics::kAttentionLeast ? 0.0f : t[i];
    if (masked) t[i] = visible(i) ? t[i] : 0.0f;
    bits |= __float_as_uint(t[i]);
  }
  return __any_sync(~0u, (bits & numerics::kAttentionOutside) != 0);
}

// attention_weight_inside with the mask of the fraction in a register: one instruction takes one constant only.
__device__ __forceinline__ float weight_inside(float t, uint32_t fraction) {
  using namespace numerics;
  const uint32_t u = __float_as_uint(t) << 8;
  uint32_t m;
  asm("lop3.b32 %0, %1, %2, 0x3f800000, 0xea;" : "=r"(m) : "r"(u), "r"(fraction));
  constexpr float highest = kAttentionWeight[3];
  return mul(__uint_as_float(u), horner<kAttentionWeight, 2>(highest, __uint_as_float(m)));
}

// attention_weight without branches, for t that are not below 2 unless +0.
__device__ __forceinline__ float weight_of_any(float t) {
  const float inside = numerics::attention_weight_inside(t);
  const float most = t >= numerics::kAttentionMost ? 2.0f : inside;
  return t != t ? t : most;
}

// Scores to weights, in place, not rounded yet. `masked`: some vector of the warpgroup does not see the whole
// block.
__device__ __forceinline__ void weights_of_block(float (&s)[kScores], Rows& rows, int block_key, bool masked, float c, float step,
                                                 uint32_t fraction) {
  float t[kScores];
  rows.moved = false;
  bool any = false;
  if (exponents_of_block(s, rows.offset, step, t) || masked) any = settle_block(s, rows, block_key, masked, c, step, t);
  if (any) {
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] = weight_of_any(t[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] = weight_inside(t[i], fraction);
  }
}

}  // namespace invar::cuda::prefill
