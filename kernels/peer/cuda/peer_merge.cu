// One round over any nodes and elements: every member writes its values into the unit area of all others and merges the whole
// tree itself.
#include "kernels/device/cuda/launch.cuh"
#include "kernels/peer/cuda/peer_nodes.cuh"
#include "kernels/peer/cuda/peer_wait.cuh"

namespace invar::cuda {
namespace {

constexpr int kUnit = 16;  // bytes in a window: two floats and the number of the operation
constexpr int kBlock = 256;
constexpr int kCrowdedBlocks = 4;  // of a member that shares its GPU: waiting blocks must leave room for those waited for

struct Elements {
  PeerNodes nodes;
  int64_t begin, count, outputs;
  const Bf16* bias;
  Bf16* y;  // element `begin`
};

template <bool kListed>
__global__ void __launch_bounds__(kBlock) merge_units(const __grid_constant__ PeerView v, const __grid_constant__ Elements p) {
  if (!v.crowded) let_successor_start();
  wait_for_predecessors();
  const uint64_t operation = this_operation(v);
  if (blockIdx.x == 0) greet(v, operation);
  const int64_t units = (p.count + 1) / 2, stride = int64_t{gridDim.x} * kBlock;
  const size_t area = v.layout.quick(operation);
  const auto own_pair = [&](int place, int64_t u) {
    const float* at = p.nodes.own[place] + 2 * u;
    return pack(at[0], 2 * u + 1 < p.count ? at[1] : 0.0f);
  };
  for (int64_t u = int64_t{blockIdx.x} * kBlock + threadIdx.x; u < units; u += stride)
    for (int place = 0; place < numerics::kSegments; ++place) {
      if (!p.nodes.own[place]) continue;
      const uint64_t bytes = own_pair(place, u);
      for (int step = 1; step < v.ranks; ++step) {
        const int peer = v.rank + step < v.ranks ? v.rank + step : v.rank + step - v.ranks;
        store_unit(v.window[peer] + area + (p.nodes.number[place] * units + u) * kUnit, bytes, operation);
      }
    }
  for (int64_t u = int64_t{blockIdx.x} * kBlock + threadIdx.x; u < units; u += stride) {
    const auto load = [&](int place, float(&value)[2]) {
      const uint64_t bytes = p.nodes.own[place]
                                 ? own_pair(place, u)
                                 : wait_for_unit(v, v.window[v.rank] + area + (p.nodes.number[place] * units + u) * kUnit,
                                                 p.nodes.owner[place], PeerPhase::kValues, operation);
      value[0] = first_of(bytes);
      value[1] = second_of(bytes);
    };
    float root[2];
    if constexpr (kListed)
      listed_sums<2>(p.nodes.present, load, root);
    else
      tree_roots<2>(p.nodes.present, load, root);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int64_t at = 2 * u + i;
      if (at >= p.count) break;
      p.y[at] = numerics::bf(p.bias ? numerics::add(root[i], numerics::widen(p.bias[(p.begin + at) % p.outputs])) : root[i]);
    }
  }
  if (blockIdx.x == 0) await_greetings(v, operation);
  __syncthreads();
  if (threadIdx.x == 0) end_operation(v, operation);
}

}  // namespace

int64_t peer_merge_quick_limit(const PeerView& view, const PeerMerge& p) {
  return static_cast<int64_t>(view.layout.quick_bytes) / kUnit / std::max<int64_t>(1, static_cast<int64_t>(p.nodes.size())) * 2;
}

void peer_merge_quick(const Device& device, const PeerView& view, const PeerMerge& p, Bf16* y) {
  const Elements e{nodes_of(view, p), p.begin, p.end - p.begin, p.outputs, p.bias, y + p.begin};
  const int64_t blocks = (e.count + 2 * kBlock - 1) / (2 * kBlock);
  const int64_t most = view.crowded ? kCrowdedBlocks : device.cuda().multiprocessors;
  launch(device, {.grid = static_cast<unsigned>(std::clamp<int64_t>(blocks, 1, most)), .block = kBlock, .dependent = true},
         p.listed_order ? merge_units<true> : merge_units<false>, view, e);
}

}  // namespace invar::cuda
