// What the two decode kernels share: a block takes one split of 512 keys of one KV head at a time, for a few of the query heads
// that read it. A producer warp streams keys, then values, through a ring of stages of 64 keys and runs ahead into the next item;
// eight warps consume. For device code only.
//
// S below is a kernel's shared memory: kHeadDim, kHeads (query heads at once), kStages, kStageBytes, stages, full, empty. With
// consume(S&, parameters, plan) beside it, what the eight warps do, launch_blocks<S>() is the kernel.
#pragma once

#include "kernels/attention/cuda/kernel.cuh"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = (kWarps + 1) * 32;
constexpr int kConsumers = 1;  // named barrier
constexpr int kSubBlock = 16;  // keys of one copy: no page holds fewer

__device__ __forceinline__ void sync_consumers() { ptx::named_barrier_sync(kConsumers, kWarps * 32); }

struct Work {
  PlanItem item;
  int split, kv_head, first_head, heads;  // heads of the group from first_head on
  int first, end;                         // keys of the split that the row sees, absolute
  __device__ bool empty() const { return heads <= 0 || first >= end; }
  __device__ int first_block() const { return first / kBlock; }
  __device__ bool sees(int key) const { return key >= first && key < end; }
  __device__ bool sees_all(int block_key) const { return block_key >= first && block_key + kBlock <= end; }
  // Mask of a pair of bf16 that belong to key and key + 1.
  __device__ uint32_t sees_pair(int key) const { return (sees(key) ? 0xffffu : 0u) | (sees(key + 1) ? 0xffff0000u : 0u); }
  __device__ int blocks() const { return (end - 1) / kBlock - first_block() + 1; }
};

__device__ __forceinline__ int items_of(const AttentionParameters& p, const PlanView& plan) {
  return plan.header().decode_items * p.kv_heads * p.subtiles;
}

// `item`: number index / (kv_heads * subtiles) of the list.
__device__ __forceinline__ Work work_of(const AttentionParameters& p, const PlanItem& item, int index, int heads_at_once) {
  Work w;
  const int rest = index % (p.kv_heads * p.subtiles);
  w.item = item;
  w.kv_head = rest / p.subtiles;
  w.first_head = rest % p.subtiles * heads_at_once;
  w.heads = min(heads_at_once, p.head_begin[w.kv_head + 1] - p.head_begin[w.kv_head] - w.first_head);
  w.split = item.first_split;
  w.first = max(first_visible(item.end_key - 1, p.window), w.split * kSplit);
  w.end = min(item.end_key, (w.split + 1) * kSplit);
  return w;
}
__device__ __forceinline__ PlanItem item_at(const AttentionParameters& p, const PlanItem* items, int index) {
  return load_item(items + index / (p.kv_heads * p.subtiles));
}

template <class S>
__device__ void produce(S& s, const AttentionParameters& p, const PlanView& plan) {
  const int count = items_of(p, plan);
  const PlanItem* items = plan.decode();
  const int lane = threadIdx.x % 32;
  constexpr int kCopies = kBlock / kSubBlock, kCopyBytes = kSubBlock * S::kHeadDim * 2;
  int stage = 0;
  uint32_t parity = 1;
  for (int index = blockIdx.x; index < count; index += gridDim.x) {
    const Work w = work_of(p, item_at(p, items, index), index, S::kHeads);
    if (w.empty()) continue;
    // Lane i: where sub-block i of the split lies.
    const int key = w.split * kSplit + lane * kSubBlock;
    const int page =
        page_or_any(plan.entries() + w.item.pages, key / p.page_size, w.first / p.page_size, (w.end - 1) / p.page_size);
    const int64_t at = page_offset(page, p.kv_heads, w.kv_head, p.page_size, S::kHeadDim) + key % p.page_size * S::kHeadDim;
    for (int pass = 0; pass < 2; ++pass) {
      const Bf16* base = pass == 0 ? p.keys : p.values;
      for (int block = w.first_block(); block < w.first_block() + w.blocks(); ++block) {
        const int64_t from = __shfl_sync(~0u, at, block % kBlocksPerSplit * kCopies + lane % kCopies);
        ptx::barrier_wait(ptx::shared_address(&s.empty[stage]), parity);
        const uint32_t full = ptx::shared_address(&s.full[stage]);
        if (lane == 0) ptx::barrier_expect(full, S::kStageBytes);
        __syncwarp();
        if (lane < kCopies)
          ptx::copy_bulk(ptx::shared_address(s.stages[stage]) + lane * kCopyBytes, base + from, kCopyBytes, full);
        if (++stage == S::kStages) stage = 0, parity ^= 1;
      }
    }
  }
}

// Address of the 16-byte piece of `slot` (of 64 in a stage) that holds element d.
template <int HeadDim>
__device__ __forceinline__ uint32_t piece_address(uint32_t stage, int slot, int d) {
  return stage + slot / 8 * (8 * HeadDim * 2) + d / kPanel * 1024 + slot % 8 * 128 + ((d % kPanel / 8) ^ (slot % 8)) * 16;
}

// A stage of a ring and its parity, `by` stages on.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
};
template <class S>
__device__ __forceinline__ Place behind(Place place, int by) {
  place.stage += by;
  while (place.stage >= S::kStages) place.stage -= S::kStages, place.parity ^= 1;
  return place;
}

template <class S>
__device__ __forceinline__ int query_head(const AttentionParameters& p, const Work& w, int column) {
  return p.head[p.head_begin[w.kv_head] + w.first_head + column];
}

template <class S>
__device__ __forceinline__ void init_barriers(S& s) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      ptx::barrier_init(ptx::shared_address(&s.full[i]), 1);
      ptx::barrier_init(ptx::shared_address(&s.empty[i]), kWarps);
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
}

template <class S>
__global__ void __launch_bounds__(kThreads, 1) decode_kernel(const __grid_constant__ AttentionParameters p) {
  extern __shared__ __align__(1024) std::byte memory[];
  auto& s = *reinterpret_cast<S*>(memory);
  init_barriers(s);
  ptx::wait_for_earlier_kernels();
  ptx::let_next_kernel_start();  // the merge: it waits itself
  const PlanView plan{p.block};
  if (threadIdx.x / 32 == kWarps)
    produce(s, p, plan);
  else
    consume(s, p, plan);
}

template <class S>
void launch_blocks(const Device& device, AttentionParameters p, int64_t group) {
  static_assert(sizeof(S) <= 227 * 1024);
  p.subtiles = static_cast<int32_t>((group + S::kHeads - 1) / S::kHeads);
  launch(
      device,
      {.grid = static_cast<unsigned>(device.cuda().multiprocessors), .block = kThreads, .shared = sizeof(S), .dependent = true},
      decode_kernel<S>, p);
}

}  // namespace
}  // namespace invar::cuda
