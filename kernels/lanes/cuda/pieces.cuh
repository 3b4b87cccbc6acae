// What the small device kernels share: 16-byte pieces of bf16, the order between dependent launches, and the row sum of clause 2.
#pragma once

#include <cstdint>

#include "kernels/numerics.h"

namespace invar::cuda {

using numerics::Bf16;

// Returns when every kernel queued before this one has ended and its writes can be seen. All threads of a kernel launched with
// Launch::dependent call it before they touch memory that is not constant, even one that needs nothing: a later kernel takes our
// end for the end of all before us.
__device__ inline void wait_for_predecessors() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
// The next kernel may be placed on multiprocessors that are free, to wait there.
__device__ inline void let_successor_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

inline constexpr int kPiece = 8;  // bf16 values of one 16-byte access

// kCount neighbouring values, moved by one access (fp32 pieces of 8: two).
template <int kCount>
struct alignas(2 * kCount) Bf16Piece {
  uint32_t pair[kCount / 2] = {};  // the lower half is the first of two
};
template <int kCount>
struct alignas(kCount < 4 ? 4 * kCount : 16) FloatPiece {
  float v[kCount];
};

template <int kCount = kPiece>
__device__ inline Bf16Piece<kCount> load_piece(const Bf16* p) {
  return *reinterpret_cast<const Bf16Piece<kCount>*>(p);
}
template <int kCount = kPiece>
__device__ inline FloatPiece<kCount> load_piece(const float* p) {
  return *reinterpret_cast<const FloatPiece<kCount>*>(p);
}
template <int kCount>
__device__ inline void store_piece(Bf16* p, const Bf16Piece<kCount>& v) {
  *reinterpret_cast<Bf16Piece<kCount>*>(p) = v;
}

__device__ inline float low_half(uint32_t pair) { return numerics::bits_float(pair << 16); }
__device__ inline float high_half(uint32_t pair) { return numerics::bits_float(pair & 0xffff0000u); }
// bf() of two values in one instruction: nearest even, subnormals kept, NaN becomes 0x7fff.
__device__ inline uint32_t narrow_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
// bf(RN(a * b)) of both values in one instruction. A product of two bf16 has 16 bits: RN changes it only below 2^-134, and there
// bf makes zero of it either way.
__device__ inline uint32_t multiply_pair(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}
template <int kCount>
__device__ inline void widen_piece(const Bf16Piece<kCount>& piece, float (&x)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 2) x[i] = low_half(piece.pair[i / 2]), x[i + 1] = high_half(piece.pair[i / 2]);
}
template <int kCount>
__device__ inline Bf16Piece<kCount> narrow_piece(const float (&x)[kCount]) {
  Bf16Piece<kCount> piece;
#pragma unroll
  for (int i = 0; i < kCount; i += 2) piece.pair[i / 2] = narrow_pair(x[i], x[i + 1]);
  return piece;
}
// residual() of each value.
template <int kCount>
__device__ inline Bf16Piece<kCount> residual_piece(const Bf16Piece<kCount>& x, const Bf16Piece<kCount>& y) {
  float a[kCount], b[kCount];
  widen_piece(x, a);
  widen_piece(y, b);
#pragma unroll
  for (int i = 0; i < kCount; ++i) a[i] = numerics::add(a[i], b[i]);
  return narrow_piece(a);
}

// Halving strides kThreads * kCount / 2 .. 1 over kThreads * kCount virtual lanes, lane j at value j mod kCount of thread
// j / kCount within an aligned group of kThreads threads of a warp: the same sum in each of them. All 32 threads of the warp take
// part. Who of two partners adds what does not matter, a + b = b + a, so the first steps halve the values of a thread too: each
// partner goes on with half of them, and the strides below kCount are then taken between the threads that parted there, in the
// same order.
template <int kThreads, int kCount>
__device__ inline float halve_lanes(float (&v)[kCount]) {
  static_assert(kThreads >= kCount && kThreads <= 32 && (kCount == 8 || kCount == 4 || kCount == 2));
  const auto share_out = [&]<int kValues, int kStride>() {
    const bool upper = threadIdx.x & kStride;
#pragma unroll
    for (int i = 0; i < kValues; ++i) {
      const float give = upper ? v[i] : v[i + kValues], keep = upper ? v[i + kValues] : v[i];
      v[i] = numerics::add(keep, __shfl_xor_sync(~0u, give, kStride));
    }
  };
  if constexpr (kCount == 8) {
    share_out.template operator()<4, kThreads / 2>();
    share_out.template operator()<2, kThreads / 4>();
    share_out.template operator()<1, kThreads / 8>();
  } else if constexpr (kCount == 4) {
    share_out.template operator()<2, kThreads / 2>();
    share_out.template operator()<1, kThreads / 4>();
  } else {
    share_out.template operator()<1, kThreads / 2>();
  }
  float sum = v[0];
#pragma unroll
  for (int stride = kThreads / kCount / 2; stride > 0; stride /= 2) sum = numerics::add(sum, __shfl_xor_sync(~0u, sum, stride));
#pragma unroll
  for (int stride = kThreads / 2; stride >= kThreads / kCount; stride /= 2)
    sum = numerics::add(sum, __shfl_xor_sync(~0u, sum, stride));
  return sum;
}

}  // namespace invar::cuda
