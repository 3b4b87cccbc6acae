// Rows and shards from the member that has them to those that want them. Bytes only.
#include "kernels/device/cuda/launch.cuh"
#include "kernels/peer/cuda/peer_wait.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kCrowdedBlocks = 4;
constexpr int kUnitValues = 4;  // bf16 in a unit

__global__ void __launch_bounds__(kBlock) share_rows(const __grid_constant__ PeerView v, const __grid_constant__ PeerRows p) {
  if (!v.crowded) let_successor_start();
  wait_for_predecessors();
  const uint64_t operation = this_operation(v);
  if (blockIdx.x == 0) greet(v, operation);
  const int64_t units = (p.width + kUnitValues - 1) / kUnitValues;
  const size_t area = v.layout.quick(operation);
  const auto owner_of = [&](int64_t row) {
    const int32_t id = p.ids[row];
    int owner = 0;
    while (owner + 1 < v.ranks && id >= p.first_id[owner + 1]) ++owner;
    return owner;
  };
  // First what others wait for, then what this member waits for.
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    if (owner_of(row) != v.rank) continue;
    const Bf16* from = p.x + row * p.width;
    for (int64_t u = threadIdx.x; u < units; u += kBlock) {
      uint64_t bytes = 0;
#pragma unroll
      for (int i = 0; i < kUnitValues; ++i)
        if (u * kUnitValues + i < p.width) bytes |= uint64_t{from[u * kUnitValues + i].bits} << (16 * i);
      for (int step = 1; step < v.ranks; ++step)
        store_unit(v.window[(v.rank + step) % v.ranks] + area + (row * units + u) * 16, bytes, operation);
    }
  }
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const int owner = owner_of(row);
    if (owner == v.rank) continue;
    Bf16* to = p.x + row * p.width;
    for (int64_t u = threadIdx.x; u < units; u += kBlock) {
      const uint64_t bytes =
          wait_for_unit(v, v.window[v.rank] + area + (row * units + u) * 16, owner, PeerPhase::kRows, operation);
#pragma unroll
      for (int i = 0; i < kUnitValues; ++i)
        if (u * kUnitValues + i < p.width) to[u * kUnitValues + i].bits = static_cast<uint16_t>(bytes >> (16 * i));
    }
  }
  if (blockIdx.x == 0) await_greetings(v, operation);
  __syncthreads();
  if (threadIdx.x == 0) end_operation(v, operation);
}

// kFirst: this sender's shard is there. Member 0 is greeted by nobody in particular; its greeting says that it has done with the
// rows of the operation before.
template <class Unit>
__global__ void __launch_bounds__(kBlock) send_shards(const __grid_constant__ PeerView v, const __grid_constant__ PeerShards p) {
  constexpr int kUnroll = 4;
  if (!v.crowded) let_successor_start();
  wait_for_predecessors();
  const uint64_t operation = this_operation(v);
  if (blockIdx.x == 0) greet(v, operation);
  if (v.rank != 0) {
    if (threadIdx.x == 0) wait_for_flag(v, 0, PeerFlag::kGreeting, 0, PeerPhase::kShards, operation);
    __syncthreads();
    const int64_t units = p.width * 4 / static_cast<int64_t>(sizeof(Unit));
    float* whole = reinterpret_cast<float*>(v.window[0] + v.layout.whole());
    for (int64_t row = 0; row < p.rows; ++row) {
      const Unit* from = reinterpret_cast<const Unit*>(p.part + row * p.width);
      Unit* to = reinterpret_cast<Unit*>(whole + row * p.stride + p.column);
      for (int64_t at = int64_t{blockIdx.x} * kBlock * kUnroll + threadIdx.x; at < units;
           at += int64_t{gridDim.x} * kBlock * kUnroll) {
        Unit held[kUnroll];
#pragma unroll
        for (int i = 0; i < kUnroll; ++i)
          if (at + i * kBlock < units) held[i] = from[at + i * kBlock];
#pragma unroll
        for (int i = 0; i < kUnroll; ++i)
          if (at + i * kBlock < units) to[at + i * kBlock] = held[i];
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) post_flag(v, 0, PeerFlag::kFirst, static_cast<int>(blockIdx.x), operation);
  } else {
    // As many blocks as the senders have: block b waits for theirs.
    for (int peer = 1 + static_cast<int>(threadIdx.x); peer < v.ranks; peer += kBlock)
      wait_for_flag(v, peer, PeerFlag::kFirst, static_cast<int>(blockIdx.x), PeerPhase::kShards, operation);
  }
  if (blockIdx.x == 0) await_greetings(v, operation);
  __syncthreads();
  if (threadIdx.x == 0) end_operation(v, operation);
}

__global__ void greet_all(const __grid_constant__ PeerView v) {
  wait_for_predecessors();
  const uint64_t operation = this_operation(v);
  greet(v, operation);
  await_greetings(v, operation);
  __syncthreads();
  if (threadIdx.x == 0) end_operation(v, operation);
}

}  // namespace

int64_t peer_rows_limit(const PeerView& view, int64_t width) {
  return static_cast<int64_t>(view.layout.quick_bytes) / ((width + kUnitValues - 1) / kUnitValues * 16);
}

void peer_rows(const Device& device, const PeerView& view, const PeerRows& p) {
  const int64_t most = view.crowded ? kCrowdedBlocks : device.cuda().multiprocessors;
  launch(device, {.grid = static_cast<unsigned>(std::clamp<int64_t>(p.rows, 1, most)), .block = kBlock, .dependent = true},
         share_rows, view, p);
}

void peer_shards(const Device& device, const PeerView& view, const PeerShards& p) {
  // The number of blocks is the same on each member, so it follows from the whole row.
  const int64_t wanted = (p.rows * p.stride / view.ranks + 8 * kBlock - 1) / (8 * kBlock);
  const auto blocks = static_cast<unsigned>(std::clamp<int64_t>(wanted, 1, view.crowded ? kCrowdedBlocks : 64));
  const bool quads = p.width % 4 == 0 && p.column % 4 == 0 && p.stride % 4 == 0 && reinterpret_cast<uintptr_t>(p.part) % 16 == 0;
  launch(device, {.grid = blocks, .block = kBlock, .dependent = true}, quads ? send_shards<float4> : send_shards<float>, view, p);
}

void peer_greeting(const Device& device, const PeerView& view) {
  launch(device, {.grid = 1, .block = 32, .dependent = true}, greet_all, view);
}

}  // namespace invar::cuda
