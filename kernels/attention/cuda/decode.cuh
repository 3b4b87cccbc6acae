// What the two decode kernels share: a block takes one split of 512 keys of one KV head at a time, for a few of the query heads
// that read it. A producer warp streams keys, then values, through a ring of stages of 64 keys and runs ahead into the next item;
// eight warps consume. For device code only.
//
// S below is a kernel's shared memory: kHeadDim, kHeads (query heads at once), kStages, kStageBytes, kThreads, stages, full,
// empty. With consume(S&, parameters, plan) beside it, what all warps but the producer do, launch_blocks<S>() is the kernel.
#pragma once

#include "kernels/attention/cuda/kernel.cuh"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda {
namespace {

constexpr int kWarps = 8;
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

// The ring is filled for the first time while the kernels before this one are still at work: the keys below the row's own, and
// their values, were in their pages before the step's reset(). Only 16 slots wait, those with the row's own key.
template <class S>
__device__ void produce(S& s, const AttentionParameters& p, const PlanView& plan) {
  const int count = items_of(p, plan);
  const PlanItem* items = plan.decode();
  const int lane = threadIdx.x % 32;
  constexpr int kCopies = kBlock / kSubBlock, kCopyBytes = kSubBlock * S::kHeadDim * 2;
  int stage = 0;
  uint32_t parity = 1;
  bool waited = false;
  for (int index = blockIdx.x; index < count; index += gridDim.x) {
    const Work w = work_of(p, item_at(p, items, index), index, S::kHeads);
    if (w.empty()) continue;
    // Lane i: where sub-block i of the split lies.
    const int key = w.split * kSplit + lane * kSubBlock;
    const int page =
        page_or_any(plan.entries() + w.item.pages, key / p.page_size, w.first / p.page_size, (w.end - 1) / p.page_size);
    const int64_t at = page_offset(page, p.kv_heads, w.kv_head, p.page_size, S::kHeadDim) + key % p.page_size * S::kHeadDim;
    const int blocks = w.blocks(), own = w.item.end_key - 1;
    // Block i of keys, then of values: the sub-block of the row's own key, the others, or both.
    const auto copy = [&](int i, int to, bool others, bool with_own) {
      const bool keys = i < blocks;
      const int block = w.first_block() + (keys ? i : i - blocks);
      const int64_t from = __shfl_sync(~0u, at, block % kBlocksPerSplit * kCopies + lane % kCopies);
      const bool is_own = block * kCopies + lane == own / kSubBlock;
      if (lane < kCopies && (is_own ? with_own : others))
        ptx::copy_bulk(ptx::shared_address(s.stages[to]) + lane * kCopyBytes, (keys ? p.keys : p.values) + from, kCopyBytes,
                       ptx::shared_address(&s.full[to]));
    };
    const auto expect = [&](int to) {
      if (lane == 0) ptx::barrier_expect(ptx::shared_address(&s.full[to]), S::kStageBytes);
      __syncwarp();
    };
    int i = 0;
    if (!waited) {
      waited = true;
      const int early = min(2 * blocks, S::kStages);
      for (; i < early; ++i) expect(i), copy(i, i, true, false);
      ptx::wait_for_earlier_kernels();
      for (int late = own / kBlock - w.first_block(); late < early; late += blocks) copy(late, late, false, true);
      stage = early;
      if (stage == S::kStages) stage = 0, parity ^= 1;
    }
    for (; i < 2 * blocks; ++i) {
      ptx::barrier_wait(ptx::shared_address(&s.empty[stage]), parity);
      expect(stage);
      copy(i, stage, true, true);
      if (++stage == S::kStages) stage = 0, parity ^= 1;
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

// The reference of a row goes past a block with this largest score; what the sums before the block are multiplied with.
__device__ __forceinline__ float pass_block(const AttentionParameters& p, float largest, float& reference) {
  if (!attention_order::moves(largest, p.step, reference)) return 1.0f;
  const float before = reference;
  reference = attention_order::moved_reference(largest, p.c, before);
  return attention_order::rescale(before, reference);
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
__global__ void __launch_bounds__(S::kThreads, 1) decode_kernel(const __grid_constant__ AttentionParameters p) {
  extern __shared__ __align__(1024) std::byte memory[];
  auto& s = *reinterpret_cast<S*>(memory);
  ptx::let_next_kernel_start();  // it waits itself
  init_barriers(s);
  const PlanView plan{p.block};
  // A kernel behind this one relies on those before it having ended when this one has: one block stays and waits in any case.
  if (static_cast<int>(blockIdx.x) >= items_of(p, plan) && blockIdx.x > 0) return;
  if (threadIdx.x / 32 == kWarps) {
    produce(s, p, plan);
    ptx::wait_for_earlier_kernels();
  } else {
    consume(s, p, plan);
  }
}

template <class S>
void launch_blocks(const Device& device, AttentionParameters p, int64_t group) {
  static_assert(sizeof(S) <= 227 * 1024);
  p.subtiles = static_cast<int32_t>((group + S::kHeads - 1) / S::kHeads);
  launch(device,
         {.grid = static_cast<unsigned>(device.cuda().multiprocessors),
          .block = S::kThreads,
          .shared = sizeof(S),
          .dependent = true},
         decode_kernel<S>, p);
}

}  // namespace
}  // namespace invar::cuda
