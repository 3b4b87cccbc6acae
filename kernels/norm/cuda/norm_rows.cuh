// RMSNorm of whole rows, a block a row: one text for a plain norm and for norms fused with what makes the row.
//
// A Source<kCount> makes the rows, in two steps so that all loads of a thread are under way before the first store:
//   Held load(int64_t row, int k)                       reads what makes elements [k, k + kCount),
//   Bf16Piece<kCount> make(int64_t row, int k, Held)     makes them, and stores what else is wanted.
// Each is called once an element, before anything is written to the row of y.
#pragma once

#include "kernels/device/cuda/launch.cuh"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/norm/cuda/norm.h"

namespace invar::cuda {

struct NormTarget {
  const Bf16* weight;
  Bf16* y;
  int64_t y_stride;
  int width;
  float epsilon;
};

__device__ inline float norm_factor(float sum, int width, float epsilon) {
  const auto n = static_cast<float>(width);
  // A power of two has an exact reciprocal, and a product costs less than a division.
  const float mean = (width & (width - 1)) == 0 ? numerics::mul(sum, numerics::bits_float(0x7f000000u - numerics::float_bits(n)))
                                                : numerics::div(sum, n);
  return numerics::rsqrt(numerics::add(mean, epsilon));
}

// bf(RN(w * bf(RN(x * r)))) of a piece.
template <int kCount>
__device__ inline Bf16Piece<kCount> norm_piece(const Bf16Piece<kCount>& x, const Bf16Piece<kCount>& weight, float r) {
  float v[kCount];
  widen_piece(x, v);
#pragma unroll
  for (int i = 0; i < kCount; ++i) v[i] = numerics::mul(v[i], r);
  Bf16Piece<kCount> y = narrow_piece(v);
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) y.pair[i] = multiply_pair(weight.pair[i], y.pair[i]);
  return y;
}

// part[w] += part[w + kStride], and so on down to a stride of one.
template <int kStride, class Part, int kParts>
__device__ inline void fold_warps(Part (&part)[kParts]) {
#pragma unroll
  for (int w = 0; w < kStride; ++w)
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(Part) / sizeof(float)); ++i)
      part[w].v[i] = numerics::add(part[w].v[i], part[w + kStride].v[i]);
  if constexpr (kStride > 1) fold_warps<kStride / 2>(part);
}

// The sum of clause 2 from kCount lanes a thread, lane kCount * t + i of thread t of 1024 / kCount; the same in every thread.
template <int kCount>
__device__ inline float sum_block_lanes(const float (&lane)[kCount]) {
  constexpr int kThreads = numerics::kSumLanes / kCount, kWarps = kThreads / 32;
  __shared__ FloatPiece<kCount == 8 ? 4 : kCount> shared[(kCount == 8 ? 2 : 1) * kThreads];
  const int t = static_cast<int>(threadIdx.x);
  float v[kCount];
  if constexpr (kCount == 8) {
    shared[t] = {lane[0], lane[1], lane[2], lane[3]};
    shared[t + kThreads] = {lane[4], lane[5], lane[6], lane[7]};
    __syncthreads();
    // Strides 512 and 256 are 64 and 32 threads; each warp takes them, and all below, for itself.
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const auto* part = shared + half * kThreads + t % 32;
      const FloatPiece<4> a = part[0], b = part[32], c = part[64], d = part[96];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[half * 4 + i] = numerics::add(numerics::add(a.v[i], c.v[i]), numerics::add(b.v[i], d.v[i]));
    }
    return halve_lanes<32>(v);
  } else {
    // More warps: the first one sums for all.
    __shared__ float total;
#pragma unroll
    for (int i = 0; i < kCount; ++i) shared[t].v[i] = lane[i];
    __syncthreads();
    if (t < 32) {
      FloatPiece<kCount> part[kWarps];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) part[w] = shared[w * 32 + t];
      fold_warps<kWarps / 2>(part);
      const float sum = halve_lanes<32>(part[0].v);
      if (t == 0) total = sum;
    }
    __syncthreads();
    return total;
  }
}

template <int kSweeps, int kCount, class Source>
__global__ void __launch_bounds__(numerics::kSumLanes / kCount)
    norm_rows(const __grid_constant__ Source source, const __grid_constant__ NormTarget p) {
  const int first = static_cast<int>(threadIdx.x) * kCount;
  const int64_t row = blockIdx.x;
  let_successor_start();
  Bf16Piece<kCount> weight[kSweeps], x[kSweeps];
#pragma unroll
  for (int s = 0; s < kSweeps; ++s)
    if (first + s * numerics::kSumLanes < p.width) weight[s] = load_piece<kCount>(p.weight + first + s * numerics::kSumLanes);
  wait_for_predecessors();
  typename Source::Held held[kSweeps];
#pragma unroll
  for (int s = 0; s < kSweeps; ++s)
    if (first + s * numerics::kSumLanes < p.width) held[s] = source.load(row, first + s * numerics::kSumLanes);
  float lane[kCount] = {};
#pragma unroll
  for (int s = 0; s < kSweeps; ++s) {
    const int k = first + s * numerics::kSumLanes;
    if (k < p.width) x[s] = source.make(row, k, held[s]);
    float v[kCount];
    widen_piece(x[s], v);  // behind the row's end +0, which changes no lane
#pragma unroll
    for (int i = 0; i < kCount; ++i) lane[i] = numerics::fma(v[i], v[i], lane[i]);
  }
  const float r = norm_factor(sum_block_lanes<kCount>(lane), p.width, p.epsilon);
  Bf16* y = p.y + row * p.y_stride + first;
#pragma unroll
  for (int s = 0; s < kSweeps; ++s)
    if (first + s * numerics::kSumLanes < p.width) store_piece(y + s * numerics::kSumLanes, norm_piece(x[s], weight[s], r));
}

// Width in (0, kMostSweeps * 1024], a multiple of 8.
template <int kCount, int kMostSweeps = 16, class Source>
void launch_norm_rows(const Device& device, int64_t rows, const Source& source, const NormTarget& target) {
  const Launch shape{.grid = static_cast<unsigned>(rows), .block = numerics::kSumLanes / kCount, .dependent = true};
  const int64_t sweeps = (target.width + numerics::kSumLanes - 1) / numerics::kSumLanes;
  if (sweeps <= 1) return launch(device, shape, norm_rows<1, kCount, Source>, source, target);
  if (sweeps <= 2) return launch(device, shape, norm_rows<2, kCount, Source>, source, target);
  if (sweeps <= 4) return launch(device, shape, norm_rows<4, kCount, Source>, source, target);
  if (sweeps <= 5) return launch(device, shape, norm_rows<5, kCount, Source>, source, target);
  if (sweeps <= 8) return launch(device, shape, norm_rows<8, kCount, Source>, source, target);
  if constexpr (kMostSweeps > 8) launch(device, shape, norm_rows<16, kCount, Source>, source, target);
}

}  // namespace invar::cuda
