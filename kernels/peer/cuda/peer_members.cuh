// Rows of one node a member: a thread's part of a member's values, the tree of the members, flags that speak for rows, and which
// kernel is whose.
#pragma once

#include <type_traits>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/peer/cuda/peer_rows.cuh"

namespace invar::cuda {
namespace {

using namespace peers;  // NOLINT: rows on a block

constexpr int kUnit = 16;          // bytes in a window: two floats and the number of the operation
constexpr int kCrowdedBlocks = 4;  // of a member that shares its GPU

// Of a row's units in a window.
__host__ __device__ constexpr int64_t unit_row_bytes(int64_t sweeps) { return sweeps * kLanes / 2 * kUnit; }

// Unit i of sweep s: a warp's units of one access are neighbours.
template <int kCount>
__device__ inline std::byte* unit_at(std::byte* row, int s, int i) {
  return row + ((s * (kCount / 2) + i) * (kLanes / kCount) + static_cast<int>(threadIdx.x)) * kUnit;
}

// A thread's values of one member's row.
template <class P, int kSweeps, int kCount>
struct Share {
  float v[kSweeps][kCount];

  __device__ void load(const float* row, int width) {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
        const FloatPiece<kCount> piece = load_piece<kCount>(row + P::first() + s * kLanes);
#pragma unroll
        for (int i = 0; i < kCount; ++i) v[s][i] = piece.v[i];
      }
  }
  __device__ void store(float* row, int width) const {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
        FloatPiece<kCount> piece;
#pragma unroll
        for (int i = 0; i < kCount; ++i) piece.v[i] = v[s][i];
        *reinterpret_cast<FloatPiece<kCount>*>(row + P::first() + s * kLanes) = piece;
      }
  }
  __device__ void send_units(std::byte* row, int width, uint64_t operation) const {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
      if (P::within(s, width)) {
#pragma unroll
        for (int i = 0; i < kCount / 2; ++i)
          store_unit(unit_at<kCount>(row, s, i), pack(v[s][2 * i], v[s][2 * i + 1]), operation);
      }
  }
  // All units at once, again and again until the last of them is there: they arrive together.
  __device__ void receive_units(const PeerView& view, std::byte* row, int width, int peer, uint64_t operation) {
    PeerPatience patience;
    for (;;) {
      bool here = true;
#pragma unroll
      for (int s = 0; s < kSweeps; ++s)
        if (P::within(s, width)) {
#pragma unroll
          for (int i = 0; i < kCount / 2; ++i) {
            uint64_t number;
            const uint64_t bytes = load_unit(unit_at<kCount>(row, s, i), number);
            here &= number == operation;
            v[s][2 * i] = first_of(bytes);
            v[s][2 * i + 1] = second_of(bytes);
          }
        }
      if (here || !patient(view, patience, peer, PeerPhase::kValues, operation)) return;
    }
  }
  __device__ void add(const Share& right) {
#pragma unroll
    for (int s = 0; s < kSweeps; ++s)
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[s][i] = numerics::add(v[s][i], right.v[s][i]);
  }
};

// The value of the node over members [kFirst, kFirst + kMembers). `get(member, share)` fetches one member's.
template <int kFirst, int kMembers, class AShare, class Get>
__device__ inline void member_tree(const Get& get, AShare& sum) {
  if constexpr (kMembers == 1) {
    get(kFirst, sum);
  } else {
    AShare right;
    member_tree<kFirst, kMembers / 2>(get, sum);
    member_tree<kFirst + kMembers / 2, kMembers / 2>(get, right);
    sum.add(right);
  }
}

__device__ inline uint64_t* row_flag(const PeerView& v, int at, int kind, int64_t row) {
  return reinterpret_cast<uint64_t*>(v.window[at] + PeerLayout::kRowFlags) + kind * kMostPeerRows + row;
}
constexpr int kResultFlag = kMostPeers;  // the flags before are of the members' values

template <int kRanks, int kSweeps>
struct FlaggedRows {
  static constexpr int kCount = 4;
  using P = Place<kSweeps, kCount>;
  using Values = Share<P, kSweeps, kCount>;
  using Row = Pieces<P, kSweeps, kCount>;
  const PeerView& v;
  const Rows& p;
  uint64_t operation;
  Row weight, bias;

  __device__ int width() const { return p.target.width; }
  __device__ void post_row(int at, int kind, int64_t row) const { post(row_flag(v, at, kind, row), operation); }
  // Every thread of the block sees what the flags of `row` speak for, from each peer.
  __device__ void await_values(int64_t row, PeerPhase phase) const {
    const int peer = static_cast<int>(threadIdx.x);
    if (peer < kRanks && peer != v.rank) wait_for(v, row_flag(v, v.rank, peer, row), peer, phase, operation);
    __syncthreads();
  }
  __device__ Bf16* result(int at, int64_t row) const {
    return reinterpret_cast<Bf16*>(v.window[at] + v.layout.results()) + row * width();
  }
  // at(member): where the member's values of the row are in this rank's window.
  template <class At>
  __device__ void merge(const Values& own, const At& at, Row& y) const {
    Values sum;
    member_tree<0, kRanks>(
        [&](int member, auto& share) {
          if (member == v.rank)
            share = own;
          else
            share.load(at(member), width());
        },
        sum);
    finish(sum.v, bias, p.bias != nullptr, y);
  }
};

// start(ranks, sweeps) of these rows.
template <class Start>
void with_shape(const PeerView& view, const Rows& rows, const Start& start) {
  const auto with_ranks = [&](auto ranks) {
    switch (sweeps_of(rows.target.width)) {
      case 1:
        return start(ranks, std::integral_constant<int, 1>());
      case 2:
        return start(ranks, std::integral_constant<int, 2>());
      case 4:
        return start(ranks, std::integral_constant<int, 4>());
      case 5:
        return start(ranks, std::integral_constant<int, 5>());
      default:
        return start(ranks, std::integral_constant<int, 8>());
    }
  };
  if (view.ranks == 2) return with_ranks(std::integral_constant<int, 2>());
  if (view.ranks == 4) return with_ranks(std::integral_constant<int, 4>());
  with_ranks(std::integral_constant<int, 8>());
}

Rows rows_of(const PeerMerge& p, const PeerNorm& next, const float* own) {
  const int64_t width = p.outputs;
  return {.own = own,
          .bias = p.bias,
          .x = next.x + p.begin,
          .target = {next.weight, next.normed + p.begin, width, static_cast<int>(width), next.epsilon},
          .rows = (p.end - p.begin) / width};
}

}  // namespace
}  // namespace invar::cuda
