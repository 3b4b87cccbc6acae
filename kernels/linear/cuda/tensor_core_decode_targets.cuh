// How values of a row-parallel linear leave for RowTargets: straight from the kernel that makes them, sixteen bytes at a time
// where a warp has whole runs of outputs, in the linear's own order of rows and outputs.
#pragma once

#include "kernels/device/cuda/ptx.cuh"
#include "kernels/linear/linear.h"

namespace invar::cuda::tc::decode {

// By every thread that sends, before it does: it waits for all earlier kernels, one of which may still read the area and counts
// the turns. The number is asked for here and not looked at before area_in_turn(): a thread has other things to do meanwhile.
__device__ inline uint32_t turn_of(const RowTargets& to) {
  ptx::wait_for_earlier_kernels();
  uint32_t turn;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(turn) : "l"(to.turn) : "memory");
  return turn;
}
// Floats from a place's first area to the one whose turn it is.
__device__ inline int64_t area_in_turn(const RowTargets& to, uint32_t turn) {
  asm volatile("" : "+r"(turn));
  return turn % 2 ? 0 : to.area;
}

// A NaN for another NaN, which nothing behind tells apart.
__device__ inline float sendable(const RowTargets& to, float v) {
  return numerics::float_bits(v) == to.absent ? numerics::bits_float(0x7fffffffu) : v;
}
__device__ inline void send_value(const RowTargets& to, int64_t at, float value) {
  const float v = sendable(to, value);
#pragma unroll 1
  for (int i = 0; i < to.count; ++i)
    asm volatile("st.relaxed.sys.global.f32 [%0], %1;" ::"l"(to.values[i] + at), "f"(v) : "memory");
}
__device__ inline void send_four(const RowTargets& to, int64_t at, const float (&v)[4]) {
  const float a = sendable(to, v[0]), b = sendable(to, v[1]), c = sendable(to, v[2]), d = sendable(to, v[3]);
#pragma unroll 1
  for (int i = 0; i < to.count; ++i)
    asm volatile("st.relaxed.sys.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to.values[i] + at), "f"(a), "f"(b), "f"(c), "f"(d)
                 : "memory");
}

// Of the piece that wgmma leaves in a lane for eight tokens (outputs o, o + 8 of lane / 4, tokens t, t + 1 of lane mod 4) to four
// neighbouring outputs of one token: four lanes change values. By a whole warp.
__device__ inline void gather_neighbours(float (&v)[4]) {
  const bool second = threadIdx.x & 4, upper = threadIdx.x & 8;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const float got = __shfl_xor_sync(~0u, second ? v[i] : v[i + 1], 4);
    (second ? v[i] : v[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float got = __shfl_xor_sync(~0u, upper ? v[i] : v[i + 2], 8);
    (upper ? v[i] : v[i + 2]) = got;
  }
}
// Which these are, of 16 outputs and 8 tokens.
__device__ inline int neighbours_output(int lane) { return (lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 8; }
__device__ inline int neighbours_token(int lane) { return lane % 4 * 2 + (lane >> 2 & 1); }

// Of 16 outputs and the next 16: lanes of tokens t and t + 1 change one of their two runs, so that a store of `first` has 32
// neighbouring outputs of token t, a whole line, and one of `second` those of t + 1. Lanes of t + 1 then have the later outputs.
__device__ inline void pair_neighbours(float (&first)[4], float (&second)[4]) {
  const bool odd = threadIdx.x & 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float got = __shfl_xor_sync(~0u, odd ? first[i] : second[i], 4);
    (odd ? first[i] : second[i]) = got;
  }
}

}  // namespace invar::cuda::tc::decode
