// Two rounds: every member gets its slice of all values, merges it and sends the result to all. One kernel: block b of a member
// waits only for the blocks b of the others, so the rounds overlap and no barrier over the grid is needed.
#include "kernels/device/cuda/launch.cuh"
#include "kernels/peer/cuda/peer_nodes.cuh"
#include "kernels/peer/cuda/peer_wait.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 512;
constexpr int kCrowdedBlocks = 4;
constexpr int kMostBlocks = 128;  // the same on every member: blocks wait for their namesakes
static_assert(kMostBlocks <= kMostPeerBlocks);

// In pieces of 8 elements, counted from element `begin`. A tile is what a block takes at a time.
struct Slices {
  PeerNodes nodes;
  int64_t begin, pieces, outputs;
  int64_t most;  // pieces of the largest slice: where the values of one place begin behind those of the one before
  const Bf16* bias;
  Bf16* y;  // element `begin`
};

__device__ inline int64_t slice_begin(const Slices& p, int ranks, int member) { return p.pieces * member / ranks; }

__device__ inline float4* values_at(const PeerView& v, const Slices& p, int member, int place) {
  return reinterpret_cast<float4*>(v.window[member] + v.layout.values()) + received_number(p.nodes, place, member) * p.most * 2;
}
__device__ inline uint4* results_at(const PeerView& v, int member) {
  return reinterpret_cast<uint4*>(v.window[member] + v.layout.results());
}

// Copies quads [first, end) of this block's tiles: kBatch loads are under way before the first store.
template <int kBatch, class T>
__device__ inline void copy_batch(const T* from, T* to, int64_t at, int64_t end) {
  T held[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i)
    if (at + i * kBlock < end) held[i] = from[at + i * kBlock];
#pragma unroll
  for (int i = 0; i < kBatch; ++i)
    if (at + i * kBlock < end) to[at + i * kBlock] = held[i];
}

__device__ inline void post_all(const PeerView& v, PeerFlag kind, uint64_t operation) {
  __syncthreads();
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < v.ranks && peer != v.rank) post_flag(v, peer, kind, static_cast<int>(blockIdx.x), operation);
}
__device__ inline void await_all(const PeerView& v, PeerFlag kind, PeerPhase phase, uint64_t operation) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer < v.ranks && peer != v.rank) wait_for_flag(v, peer, kind, static_cast<int>(blockIdx.x), phase, operation);
  __syncthreads();
}

__device__ inline void load_values(const float4* from, float (&v)[kPiece]) {
  const float4 a = from[0], b = from[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// kRanks: one node a member; 0: any nodes.
template <int kRanks>
__global__ void __launch_bounds__(kBlock) merge_slices(const __grid_constant__ PeerView v, const __grid_constant__ Slices p) {
  constexpr int kTile = 2 * kBlock;  // pieces
  const int t = static_cast<int>(threadIdx.x), ranks = kRanks ? kRanks : v.ranks;
  const int64_t stride = int64_t{gridDim.x} * kTile;
  if (!v.crowded) let_successor_start();
  wait_for_predecessors();
  const uint64_t operation = this_operation(v);

  for (int step = 1; step < ranks; ++step) {
    const int peer = (v.rank + step) % ranks;
    const int64_t first = slice_begin(p, ranks, peer), pieces = slice_begin(p, ranks, peer + 1) - first;
    for (int place = 0; place < numerics::kSegments; ++place) {
      if (!p.nodes.own[place]) continue;
      const float4* from = reinterpret_cast<const float4*>(p.nodes.own[place]) + first * 2;
      float4* to = values_at(v, p, peer, place);
      for (int64_t tile = blockIdx.x * int64_t{kTile}; tile < pieces; tile += stride)
        copy_batch<4>(from, to, tile * 2 + t, pieces * 2 < tile * 2 + 4 * kBlock ? pieces * 2 : tile * 2 + 4 * kBlock);
    }
  }
  post_all(v, PeerFlag::kFirst, operation);
  await_all(v, PeerFlag::kFirst, PeerPhase::kSlices, operation);

  const int64_t mine = slice_begin(p, ranks, v.rank), count = slice_begin(p, ranks, v.rank + 1) - mine;
  uint4* y = reinterpret_cast<uint4*>(p.y);
  for (int64_t tile = blockIdx.x * int64_t{kTile}; tile < count; tile += stride)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = tile + half * kBlock + t;
      if (at >= count) continue;
      const auto load = [&](int place, float(&value)[kPiece]) {
        load_values(p.nodes.own[place] ? reinterpret_cast<const float4*>(p.nodes.own[place]) + (mine + at) * 2
                                       : values_at(v, p, v.rank, place) + at * 2,
                    value);
      };
      float root[kPiece];
      if constexpr (kRanks > 0) {
        float value[kRanks][kPiece];
#pragma unroll
        for (int i = 0; i < kRanks; ++i) load(i * (numerics::kSegments / kRanks), value[i]);
        fold_level(value);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) root[i] = value[0][i];
      } else {
        tree_roots<kPiece>(p.nodes.present, load, root);
      }
      if (p.bias) {
        float b[kPiece];
        widen_piece(load_piece<kPiece>(p.bias + (p.begin + (mine + at) * kPiece) % p.outputs), b);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) root[i] = numerics::add(root[i], b[i]);
      }
      const Bf16Piece<kPiece> piece = narrow_piece(root);
      const uint4 result{piece.pair[0], piece.pair[1], piece.pair[2], piece.pair[3]};
      y[mine + at] = result;
      for (int step = 1; step < ranks; ++step) results_at(v, (v.rank + step) % ranks)[mine + at] = result;
    }
  post_all(v, PeerFlag::kSecond, operation);
  await_all(v, PeerFlag::kSecond, PeerPhase::kResults, operation);

  for (int step = 1; step < ranks; ++step) {
    const int peer = (v.rank + step) % ranks;
    const int64_t first = slice_begin(p, ranks, peer), end = slice_begin(p, ranks, peer + 1);
    const uint4* from = results_at(v, v.rank);
    for (int64_t tile = first + blockIdx.x * int64_t{kTile}; tile < end; tile += stride)
      copy_batch<2>(from, y, tile + t, end < tile + kTile ? end : tile + kTile);
  }
  if (t == 0) end_operation(v, operation);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

int64_t peer_merge_slices_limit(const PeerView& view, const PeerMerge& p, const Bf16* y) {
  if (p.listed_order || p.outputs % kPiece || p.stride % kPiece || !aligned(p.partials) || !aligned(y) || !aligned(p.bias))
    return 0;
  int fewest = static_cast<int>(p.nodes.size());  // own ones are not received
  for (int member = 0; member < view.ranks; ++member) fewest = std::min(fewest, p.first[member + 1] - p.first[member]);
  const int64_t received = std::max<int64_t>(1, static_cast<int64_t>(p.nodes.size()) - fewest);
  const int64_t slice = static_cast<int64_t>(view.layout.values_bytes) / (received * kPiece * 4);  // pieces
  const int64_t elements = std::min<int64_t>(slice * view.ranks * kPiece, static_cast<int64_t>(view.layout.results_bytes) / 2);
  return elements / p.outputs * p.outputs;
}

void peer_merge_slices(const Device& device, const PeerView& view, const PeerMerge& p, Bf16* y) {
  Slices s{.nodes = nodes_of(view, p),
           .begin = p.begin,
           .pieces = (p.end - p.begin) / kPiece,
           .outputs = p.outputs,
           .most = ((p.end - p.begin) / kPiece + view.ranks - 1) / view.ranks,
           .bias = p.bias,
           .y = y + p.begin};
  const int64_t blocks = (s.most + 2 * kBlock - 1) / (2 * kBlock);
  const Launch shape{.grid = static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, view.crowded ? kCrowdedBlocks : kMostBlocks)),
                     .block = kBlock,
                     .dependent = true};
  const bool each = one_node_each(view, p);
  launch(device, shape,
         !each             ? merge_slices<0>
         : view.ranks == 2 ? merge_slices<2>
         : view.ranks == 4 ? merge_slices<4>
                           : merge_slices<8>,
         view, s);
}

}  // namespace invar::cuda
