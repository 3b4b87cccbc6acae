#include "kernels/device/cuda/launch.cuh"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/merge/cuda/merge.h"
#include "kernels/merge/cuda/merge_tree.cuh"
#include "kernels/norm/cuda/norm_rows.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;

struct Elements {
  TreeSources sources;
  int64_t begin, count;
  int64_t outputs;
  const Bf16* bias;
  Bf16* y;  // element `begin`
};

// Loads for merge_tree.cuh.
template <int kCount>
struct LoadPiece {
  const TreeSources& from;
  int64_t at;
  __device__ void operator()(int i, float (&v)[kCount]) const {
    const FloatPiece<kCount> piece = load_piece<kCount>(from.values[i] + at);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v[k] = piece.v[k];
  }
};

template <bool kListed, int kCount, class Load>
__device__ inline void merged(unsigned present, const Load& load, float (&root)[kCount]) {
  if constexpr (kListed)
    listed_sums<kCount>(present, load, root);
  else
    tree_roots<kCount>(present, load, root);
}

// bf(RN(root + bias)) of a piece that lies in one row.
template <int kCount>
__device__ inline Bf16Piece<kCount> finished_piece(float (&root)[kCount], const Bf16* bias) {
  if (bias) {
    float b[kCount];
    widen_piece(load_piece<kCount>(bias), b);
#pragma unroll
    for (int k = 0; k < kCount; ++k) root[k] = numerics::add(root[k], b[k]);
  }
  return narrow_piece(root);
}

// kNodes: that many nodes of one level; 0 = any set of nodes.
template <int kNodes, bool kListed>
__global__ void __launch_bounds__(kBlock) merge_pieces(const __grid_constant__ Elements p) {
  let_successor_start();
  wait_for_predecessors();
  const int64_t at = (int64_t{blockIdx.x} * kBlock + threadIdx.x) * kPiece;
  if (at >= p.count) return;
  const Bf16* bias = p.bias ? p.bias + (p.begin + at) % p.outputs : nullptr;
  const LoadPiece<kPiece> load{p.sources, at};
  if constexpr (kNodes > 0) {
    float v[kNodes][kPiece];
#pragma unroll
    for (int i = 0; i < kNodes; ++i) load(i * (numerics::kSegments / kNodes), v[i]);
    fold_level(v);
    store_piece(p.y + at, finished_piece(v[0], bias));
  } else {
    float root[kPiece];
    merged<kListed, kPiece>(p.sources.present, load, root);
    store_piece(p.y + at, finished_piece(root, bias));
  }
}

template <bool kListed>
__global__ void __launch_bounds__(kBlock) merge_elements(const __grid_constant__ Elements p) {
  let_successor_start();
  wait_for_predecessors();
  for (int64_t at = int64_t{blockIdx.x} * kBlock + threadIdx.x; at < p.count; at += int64_t{gridDim.x} * kBlock) {
    float root[1];
    merged<kListed, 1>(p.sources.present, LoadPiece<1>{p.sources, at}, root);
    if (p.bias) root[0] = numerics::add(root[0], numerics::widen(p.bias[(p.begin + at) % p.outputs]));
    p.y[at] = numerics::bf(root[0]);
  }
}

__global__ void __launch_bounds__(kBlock) add_elements(const __grid_constant__ TreeSources from, int64_t count, float* sum) {
  let_successor_start();
  wait_for_predecessors();
  for (int64_t at = int64_t{blockIdx.x} * kBlock + threadIdx.x; at < count; at += int64_t{gridDim.x} * kBlock) {
    float total[1];
    listed_sums<1>(from.present, LoadPiece<1>{from, at}, total);
    sum[at] = total[0];
  }
}

// What the norm's rows are made of (norm_rows.cuh): kNodes nodes of one level.
template <int kNodes, int kCount>
struct MergeSource {
  struct Held {
    Bf16Piece<kCount> x;
    float v[kNodes][kCount];
  };
  TreeSources sources;
  const Bf16* bias;
  Bf16* y;  // may be null
  Bf16* x;
  int64_t width;
  __device__ Held load(int64_t row, int k) const {
    const int64_t at = row * width + k;
    Held held;
    held.x = load_piece<kCount>(x + at);
#pragma unroll
    for (int i = 0; i < kNodes; ++i) LoadPiece<kCount>{sources, at}(i * (numerics::kSegments / kNodes), held.v[i]);
    return held;
  }
  __device__ Bf16Piece<kCount> make(int64_t row, int k, Held& held) const {
    fold_level(held.v);
    const Bf16Piece<kCount> result = finished_piece(held.v[0], bias ? bias + k : nullptr);
    if (y) store_piece(y + row * width + k, result);
    const Bf16Piece<kCount> sum = residual_piece(held.x, result);
    store_piece(x + row * width + k, sum);
    return sum;
  }
};

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

bool aligned(const TreeSources& from) {
  for (int i = 0; i < numerics::kSegments; ++i)
    if (from.present >> i & 1 && !aligned(from.values[i])) return false;
  return true;
}

TreeSources sources_of(const MergeNodes& p) {
  TreeSources from{};
  for (size_t i = 0; i < p.nodes.size(); ++i) {
    const auto place = p.listed_order ? i : static_cast<size_t>(p.nodes[i].index) << p.nodes[i].level;
    from.values[place] = p.values[i];
    from.present |= 1u << place;
  }
  return from;
}

// 1, 2, 4 or 8 if the nodes are all those of one level, otherwise 0.
int whole_level(const MergeNodes& p) {
  const auto count = static_cast<int>(p.nodes.size());
  if (p.listed_order || count == 0 || numerics::kSegments % count != 0) return 0;
  for (int i = 0; i < count; ++i)
    if (p.nodes[i].index != i || count << p.nodes[i].level != numerics::kSegments) return 0;
  return count;
}

unsigned blocks_for(const Device& device, int64_t elements) {
  return static_cast<unsigned>(std::min<int64_t>((elements + kBlock - 1) / kBlock, int64_t{device.cuda().multiprocessors} * 8));
}

}  // namespace

void merge_nodes(const Device& device, const MergeNodes& p) {
  if (p.end <= p.begin) return;
  const Elements e{sources_of(p), p.begin, p.end - p.begin, p.outputs, p.bias, p.y + p.begin};
  const bool pieces = aligned(e.sources) && aligned(e.y) && (!p.bias || aligned(p.bias)) && p.outputs % kPiece == 0 &&
                      e.begin % kPiece == 0 && e.count % kPiece == 0;
  if (pieces) {
    const auto blocks = static_cast<unsigned>((e.count / kPiece + kBlock - 1) / kBlock);
    const int level = whole_level(p);
    const auto kernel = level == 1       ? merge_pieces<1, false>
                        : level == 2     ? merge_pieces<2, false>
                        : level == 4     ? merge_pieces<4, false>
                        : level == 8     ? merge_pieces<8, false>
                        : p.listed_order ? merge_pieces<0, true>
                                         : merge_pieces<0, false>;
    return launch(device, {.grid = blocks, .block = kBlock, .dependent = true}, kernel, e);
  }
  launch(device, {.grid = blocks_for(device, e.count), .block = kBlock, .dependent = true},
         p.listed_order ? merge_elements<true> : merge_elements<false>, e);
}

void add_listed(const Device& device, std::span<const float* const> values, int64_t count, float* sum) {
  if (count == 0) return;
  TreeSources from{};
  for (size_t i = 0; i < values.size(); ++i) from.values[i] = values[i], from.present |= 1u << i;
  launch(device, {.grid = blocks_for(device, count), .block = kBlock, .dependent = true}, add_elements, from, count, sum);
}

void merge_residual_norm(const Device& device, const MergeResidualNorm& p) {
  constexpr int kMostSweeps = 8;  // what a thread can hold of eight nodes
  const int64_t width = p.merge.outputs, rows = width ? p.merge.end / width : 0;
  if (rows == 0) return;
  const TreeSources from = sources_of(p.merge);
  const bool pieces = aligned(from) && aligned(p.merge.y) && aligned(p.merge.bias) && aligned(p.x) && aligned(p.weight) &&
                      aligned(p.normed) && width % kPiece == 0 && width <= kMostSweeps * numerics::kSumLanes;
  const int level = pieces ? whole_level(p.merge) : 0;
  const NormTarget target{p.weight, p.normed, width, static_cast<int>(width), p.epsilon};
  const auto fused = [&]<int kNodes, int kCount>() {
    launch_norm_rows<kCount, kMostSweeps>(device, rows, MergeSource<kNodes, kCount>{from, p.merge.bias, p.merge.y, p.x, width},
                                          target);
  };
  if (level == 1) return fused.template operator()<1, 4>();
  if (level == 2) return fused.template operator()<2, 4>();
  if (level == 4) return fused.template operator()<4, 4>();
  if (level == 8 && width <= 5 * numerics::kSumLanes) return fused.template operator()<8, 2>();
  // Rare shapes and the control arm: the plain operations, with the result in `normed` until the norm overwrites it.
  MergeNodes merge = p.merge;
  if (!merge.y) merge.y = p.normed;
  cuda::merge_nodes(device, merge);
  cuda::residual_rms_norm(device, {rows, width, p.x, merge.y, p.weight, p.epsilon, p.normed});
}

}  // namespace invar::cuda
