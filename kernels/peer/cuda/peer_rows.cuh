// Rows of one node or more a member on a block: values of members, the sum, and what follows in a decoder (bias, residual, norm).
#pragma once

#include "kernels/norm/cuda/norm_rows.cuh"
#include "kernels/peer/cuda/peer_wait.cuh"

namespace invar::cuda::peers {

inline constexpr int kLanes = numerics::kSumLanes;

struct Rows {
  const float* own;  // this member's values; null where linears have sent them
  const Bf16* bias;
  Bf16* x;
  NormTarget target;
  int64_t rows;
};

// How the elements of a row lie on a block: a thread has kCount neighbouring lanes of the norm's sum, the same in each sweep.
template <int kSweeps, int kCount>
struct Place {
  __device__ static int first() { return static_cast<int>(threadIdx.x) * kCount; }
  __device__ static bool within(int s, int width) { return first() + s * kLanes < width; }
};

template <class P, int kSweeps, int kCount>
struct Pieces {
  Bf16Piece<kCount> v[kSweeps];
  __device__ void load(const Bf16* row, int width) {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) v[s] = load_piece<kCount>(row + P::first() + s * kLanes);
  }
  // Around the first cache: written by a kernel whose end this one has not waited for itself.
  __device__ void load_written(const Bf16* row, int width) {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
        const uint32_t* pair = reinterpret_cast<const uint32_t*>(row + P::first() + s * kLanes);
        if constexpr (kCount == 2) {
          v[s].pair[0] = __ldcg(pair);
        } else {
          static_assert(kCount == 4);
          const uint2 both = __ldcg(reinterpret_cast<const uint2*>(pair));
          v[s].pair[0] = both.x, v[s].pair[1] = both.y;
        }
      }
  }
  __device__ void store(Bf16* row, int width) const {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) store_piece(row + P::first() + s * kLanes, v[s]);
  }
};

// bf(RN(root + bias)); root is changed.
template <class P, int kSweeps, int kCount>
__device__ inline void finish(float (&root)[kSweeps][kCount], const Pieces<P, kSweeps, kCount>& bias, bool biased,
                              Pieces<P, kSweeps, kCount>& y) {
#pragma unroll
  for (int s = 0; s < kSweeps; ++s) {
    if (biased) {
      float b[kCount];
      widen_piece(bias.v[s], b);
#pragma unroll
      for (int i = 0; i < kCount; ++i) root[s][i] = numerics::add(root[s][i], b[i]);
    }
    y.v[s] = narrow_piece(root[s]);
  }
}

// x += y, and the norm of that.
template <class P, int kSweeps, int kCount>
__device__ inline void add_and_norm(const Rows& p, int64_t row, Pieces<P, kSweeps, kCount>& x,
                                    const Pieces<P, kSweeps, kCount>& y, const Pieces<P, kSweeps, kCount>& weight) {
  const int width = p.target.width;
  float lane[kCount] = {};
#pragma unroll
  for (int s = 0; s < kSweeps; ++s) {
    if (P::within(s, width))
      x.v[s] = residual_piece(x.v[s], y.v[s]);
    else
      x.v[s] = {};  // behind the row's end +0, which changes no lane
    float value[kCount];
    widen_piece(x.v[s], value);
#pragma unroll
    for (int i = 0; i < kCount; ++i) lane[i] = numerics::fma(value[i], value[i], lane[i]);
  }
  const float r = norm_factor(sum_block_lanes<kCount>(lane), width, p.target.epsilon);
  x.store(p.x + row * width, width);
#pragma unroll
  for (int s = 0; s < kSweeps; ++s) x.v[s] = norm_piece(x.v[s], weight.v[s], r);
  x.store(p.target.y + row * p.target.y_stride, width);
}

inline constexpr int kMostSweeps = 8;

inline int sweeps_of(int64_t width) {
  const int64_t sweeps = (width + kLanes - 1) / kLanes;
  for (const int known : {1, 2, 4, 5, 8})
    if (sweeps <= known) return known;
  return 0;
}

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace invar::cuda::peers
