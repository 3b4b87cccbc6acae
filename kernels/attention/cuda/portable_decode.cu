// One query row of a sequence against its keys, profile portable, head_dim 64 or 128: memory-bound with few heads, else bound by
// fma.
//
//   scores   warp w takes block w of the split, a lane two of its keys for all heads: a chain over d each
//   softmax  each warp for its block, once the maxima of the blocks before it are known
//   values   a thread takes one d for four heads: chains over all keys of the split; then one or two warps add the denominator's
//            lanes, in the order of the keys
#include "kernels/attention/cuda/decode.cuh"
#include "kernels/attention/cuda/kernels.h"

namespace invar::cuda {
namespace {

template <int HeadDim, int Heads>
struct alignas(1024) Shared {
  static constexpr int kHeadDim = HeadDim, kHeads = Heads, kThreads = (kWarps + 1) * 32;
  static constexpr int kStageBytes = kBlock * HeadDim * 2;
  static constexpr int kStages = 176 * 1024 / kStageBytes;
  std::byte stages[kStages][kStageBytes];
  float q[HeadDim][Heads];
  float weights[kSplit][Heads];  // rounded
  float largest[kBlocksPerSplit][Heads];
  float scale[kBlocksPerSplit][Heads];
  float l[Heads];
  uint64_t full[kStages], empty[kStages];
};

template <int Heads>
__device__ __forceinline__ void load_heads(float (&to)[Heads], const float* from) {
#pragma unroll
  for (int h = 0; h < Heads; h += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + h);
    to[h] = four.x, to[h + 1] = four.y, to[h + 2] = four.z, to[h + 3] = four.w;
  }
}
template <int Heads>
__device__ __forceinline__ void store_heads(float* to, const float (&from)[Heads]) {
#pragma unroll
  for (int h = 0; h < Heads; h += 4)
    *reinterpret_cast<float4*>(to + h) = make_float4(from[h], from[h + 1], from[h + 2], from[h + 3]);
}

__device__ __forceinline__ float element(uint32_t pair, int i) { return __uint_as_float(i ? pair & 0xffff0000u : pair << 16); }

template <int HeadDim, int Heads>
__device__ void consume(Shared<HeadDim, Heads>& s, const AttentionParameters& p, const PlanView& plan) {
  using S = Shared<HeadDim, Heads>;
  constexpr int kKeys = kBlock / 32;                     // of a lane
  constexpr int kValueWarps = HeadDim * Heads / 4 / 32;  // that multiply values
  constexpr int kReleases = kWarps / kValueWarps;
  constexpr int kSumWarps = Heads / 4;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Place begin;  // of the item's first key block
  const int count = items_of(p, plan);
  const PlanItem* items = plan.decode();
  ptx::wait_for_earlier_kernels();
  for (int index = blockIdx.x; index < count; index += gridDim.x) {
    const Work w = work_of(p, item_at(p, items, index), index, Heads);
    if (w.empty()) continue;
    const int blocks = w.blocks();
    for (int i = threadIdx.x; i < HeadDim * Heads; i += kWarps * 32) {
      const int h = i / HeadDim, d = i % HeadDim;
      s.q[d][h] = h < w.heads ? numerics::widen(p.q[w.item.row * p.q_stride + query_head<S>(p, w, h) * HeadDim + d]) : 0.0f;
    }
    sync_consumers();

    // ---- scores of keys lane, lane + 32 of the warp's block
    float scores[kKeys][Heads] = {};
    const int first_key = (w.first_block() + warp) * kBlock + lane;
    if (warp < blocks) {
      const Place mine = behind<S>(begin, warp);
      ptx::barrier_wait(ptx::shared_address(&s.full[mine.stage]), mine.parity);
      const std::byte* base = s.stages[mine.stage];
#pragma unroll 2
      for (int d = 0; d < HeadDim; d += 8) {
        uint4 keys[kKeys];
#pragma unroll
        for (int k = 0; k < kKeys; ++k)
          keys[k] = *reinterpret_cast<const uint4*>(base + piece_address<HeadDim>(0, lane + k * 32, d));
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          float q[Heads];
          load_heads(q, s.q[d + e]);
#pragma unroll
          for (int k = 0; k < kKeys; ++k) {
            const uint32_t pair = e < 2 ? keys[k].x : e < 4 ? keys[k].y : e < 6 ? keys[k].z : keys[k].w;
#pragma unroll
            for (int h = 0; h < Heads; ++h) scores[k][h] = numerics::fma(q[h], element(pair, e % 2), scores[k][h]);
          }
        }
      }
      __syncwarp();
      if (lane < kWarps) ptx::barrier_arrive(ptx::shared_address(&s.empty[mine.stage]));
#pragma unroll
      for (int h = 0; h < Heads; ++h) {
        float largest = -kInfinity;
#pragma unroll
        for (int k = 0; k < kKeys; ++k)
          if (w.sees(first_key + k * 32)) largest = fmaxf(largest, scores[k][h]);
#pragma unroll
        for (int step = 1; step < 32; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
        if (lane == 0) s.largest[warp][h] = largest;
      }
    }
    sync_consumers();

    // ---- softmax: a lane follows the reference of one head
    float reference = -kInfinity, offset = 0;
    for (int b = 0; b < blocks; ++b) {
      const float scale = pass_block(p, s.largest[b][lane % Heads], reference);
      if (b != warp) continue;
      offset = numerics::attention_offset(reference);
      if (lane < Heads) s.scale[b][lane] = scale;
    }
    if (warp < blocks) {
#pragma unroll
      for (int k = 0; k < kKeys; ++k) {
        const int key = first_key + k * 32;
        const bool visible = w.sees(key);
#pragma unroll
        for (int h = 0; h < Heads; ++h) {
          const float weight = numerics::attention_weight(numerics::fma(scores[k][h], p.step, __shfl_sync(~0u, offset, h)));
          scores[k][h] = visible ? numerics::widen(numerics::bf(weight)) : 0.0f;
        }
        store_heads(s.weights[warp * kBlock + lane + k * 32], scores[k]);
      }
    }
    sync_consumers();

    // ---- values
    float o[4] = {};
    const int d = threadIdx.x % HeadDim, four = threadIdx.x / HeadDim * 4;
    if (warp < kValueWarps) {
      Place at = behind<S>(begin, blocks);
      for (int b = 0; b < blocks; ++b) {
        ptx::barrier_wait(ptx::shared_address(&s.full[at.stage]), at.parity);
        const std::byte* base = s.stages[at.stage];
        float scale[4];
        load_heads(scale, &s.scale[b][four]);
        if (b > 0) {
#pragma unroll
          for (int i = 0; i < 4; ++i) o[i] = numerics::mul(o[i], scale[i]);
        }
        const auto add_key = [&](int key) {
          const auto bits = *reinterpret_cast<const uint16_t*>(base + piece_address<HeadDim>(0, key, d / 8 * 8) + d % 8 * 2);
          float weights[4];
          load_heads(weights, &s.weights[b * kBlock + key][four]);
#pragma unroll
          for (int i = 0; i < 4; ++i) o[i] = numerics::fma(weights[i], numerics::widen(Bf16{bits}), o[i]);
        };
        const int block_key = (w.first_block() + b) * kBlock;
        if (w.sees_all(block_key)) {
#pragma unroll 8
          for (int key = 0; key < kBlock; ++key) add_key(key);
        } else {  // what another slot holds may be an infinity, which a weight of +0 does not silence
#pragma unroll 1
          for (int key = max(w.first - block_key, 0); key < min(w.end - block_key, kBlock); ++key) add_key(key);
        }
        __syncwarp();
        if (lane < kReleases) ptx::barrier_arrive(ptx::shared_address(&s.empty[at.stage]));
        at = behind<S>(at, 1);
      }
    }
    begin = behind<S>(begin, 2 * blocks);

    const bool direct = w.item.states < 0;
    if (warp >= kWarps - kSumWarps) {  // lane n of the denominator of head h
      const int n = lane % 8, h = (warp - (kWarps - kSumWarps)) * 4 + lane / 8;
      float l = 0;
      for (int b = 0; b < blocks; ++b) {
        l = numerics::mul(l, s.scale[b][h]);
#pragma unroll
        for (int i = 0; i < kBlock; i += 8) l = numerics::add(l, s.weights[b * kBlock + i + n][h]);
      }
#pragma unroll
      for (int step = 1; step < 8; step *= 2) l = numerics::add(l, __shfl_xor_sync(~0u, l, step));
      const float last = __shfl_sync(~0u, reference, h);
      if (n == 0 && h < w.heads) {
        if (direct)
          s.l[h] = l;
        else
          *reinterpret_cast<float2*>(state_of(p, w.item.states, 1, w.split, 0, query_head<S>(p, w, h)) + HeadDim) =
              make_float2(last, l);
      }
    }
    if (direct) sync_consumers();
    if (warp < kValueWarps) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (four + i >= w.heads) continue;
        const int head = query_head<S>(p, w, four + i);
        if (direct)
          p.y[w.item.row * p.y_stride + head * HeadDim + d] = output_of(o[i], reciprocal_of(s.l[four + i]));
        else
          state_of(p, w.item.states, 1, w.split, 0, head)[d] = o[i];
      }
    }
  }
}

}  // namespace

void launch_portable_decode(const Device& device, const AttentionParameters& p, int64_t group) {
  if (p.head_dim == 128)
    group <= 4 ? launch_blocks<Shared<128, 4>>(device, p, group) : launch_blocks<Shared<128, 8>>(device, p, group);
  else
    group <= 4 ? launch_blocks<Shared<64, 4>>(device, p, group) : launch_blocks<Shared<64, 8>>(device, p, group);
}

}  // namespace invar::cuda
