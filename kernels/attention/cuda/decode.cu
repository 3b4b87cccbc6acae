// One query row of a sequence against its keys, profile tc, head_dim 64 or 128: the memory-bound case.
//
//   scores   warp w multiplies block w of the split; keys are the M side, the heads are 8 columns, so few heads waste little
//   softmax  each warp for its block, once the maxima of the blocks before it are known
//   values   warp w multiplies 16 of the output's d by all keys of the split, in one chain; meanwhile one warp more multiplies
//            ones: the denominators
#include <type_traits>

#include "kernels/attention/cuda/decode.cuh"
#include "kernels/attention/cuda/kernels.h"

namespace invar::cuda {
namespace {

constexpr int kWeightPitch = kSplit + 8;

constexpr int kScored = 1, kSums = 2;  // named barriers

template <int HeadDim, int Columns>  // Columns: groups of 8 query heads
struct alignas(1024) Shared {
  static constexpr int kHeadDim = HeadDim, kHeads = Columns * 8;
  static constexpr int kConsumers = (kWarps + 1) * 32;  // threads
  static constexpr int kThreads = kConsumers + 32;
  static constexpr int kStageBytes = kBlock * HeadDim * 2;
  static constexpr int kStages = 208 * 1024 / kStageBytes;
  std::byte stages[kStages][kStageBytes];
  uint16_t weights[kHeads][kWeightPitch];  // bf16 [head][key]
  float largest[kBlocksPerSplit][kHeads];
  float scale[kBlocksPerSplit][kHeads];
  float l[kHeads];
  uint64_t full[kStages], empty[kStages];
};

// What the warp does that adds denominators, beside the others: behind the value chain, or in every warp, it would be time that a
// short step waits. Ones are the M side, so all rows of l are the same: heads 2t and 2t + 1 in each thread.
template <int HeadDim, int Columns>
__device__ void sum_items(Shared<HeadDim, Columns>& s, const AttentionParameters& p, const PlanView& plan) {
  using S = Shared<HeadDim, Columns>;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, count = items_of(p, plan);
  constexpr uint32_t kAllOnes[4] = {kOnes, kOnes, kOnes, kOnes};
  for (int index = blockIdx.x; index < count; index += gridDim.x) {
    const Work w = work_of(p, item_at(p, plan.decode(), index), index, S::kHeads);
    if (w.empty()) continue;
    const int blocks = w.blocks();
    ptx::named_barrier_sync_roles(kScored, S::kConsumers);
    float reference[Columns][2], l[Columns][4] = {};
#pragma unroll
    for (int n = 0; n < Columns; ++n) {
      reference[n][0] = reference[n][1] = -kInfinity;
      for (int b = 0; b < blocks; ++b)
#pragma unroll
        for (int i = 0; i < 2; ++i) pass_block(p, s.largest[b][n * 8 + t * 2 + i], reference[n][i]);
    }
    ptx::named_barrier_sync_roles(kScored, S::kConsumers);
    for (int b = 0; b < blocks; ++b) {
#pragma unroll
      for (int n = 0; n < Columns; ++n) {
        const float2 scale = *reinterpret_cast<const float2*>(&s.scale[b][n * 8 + t * 2]);
#pragma unroll
        for (int i = 0; i < 4; ++i) l[n][i] = numerics::mul(l[n][i], i % 2 ? scale.y : scale.x);
      }
#pragma unroll
      for (int k = 0; k < kBlock / 16; ++k)
#pragma unroll
        for (int n = 0; n < Columns; ++n) {
          const uint16_t* weights = &s.weights[n * 8 + g][b * kBlock + k * 16 + t * 2];
          ptx::multiply_16x8x16(l[n], kAllOnes, *reinterpret_cast<const uint32_t*>(weights),
                                *reinterpret_cast<const uint32_t*>(weights + 8));
        }
    }
    const bool direct = w.item.states < 0;
#pragma unroll
    for (int n = 0; n < Columns; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = n * 8 + t * 2 + i;
        if (g != 0 || column >= w.heads) continue;
        if (direct) {
          s.l[column] = l[n][i];
        } else {
          const int head = query_head<S>(p, w, column);
          *reinterpret_cast<float2*>(state_of(p, w.item.states, 1, w.split, 0, head) + HeadDim) =
              make_float2(reference[n][i], l[n][i]);
        }
      }
    if (direct) ptx::named_barrier_sync_roles(kSums, S::kConsumers);
  }
}

template <int HeadDim, int Columns>
__device__ void consume(Shared<HeadDim, Columns>& s, const AttentionParameters& p, const PlanView& plan) {
  using S = Shared<HeadDim, Columns>;
  constexpr int kSteps = HeadDim / 16;
  constexpr int kTiles = HeadDim / 16;  // of 16 d; one a warp
  constexpr int kReleases = kWarps / kTiles;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  if (warp > kWarps) {
    ptx::wait_for_earlier_kernels();
    sum_items(s, p, plan);
    return;
  }
  Place begin;  // of the item's first key block
  // Two items ahead: what the plan says; one item ahead: its queries. Neither is waited for.
  const int count = items_of(p, plan);
  const PlanItem* items = plan.decode();
  uint32_t q[kSteps][Columns][2];
  const auto load_queries = [&](const Work& w) {
#pragma unroll
    for (int n = 0; n < Columns; ++n) {
      const bool real = n * 8 + g < w.heads;
      const Bf16* from = p.q + w.item.row * p.q_stride + query_head<S>(p, w, real ? n * 8 + g : 0) * HeadDim + t * 2;
#pragma unroll
      for (int k = 0; k < kSteps; ++k)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          q[k][n][half] = real ? *reinterpret_cast<const uint32_t*>(from + k * 16 + half * 8) : 0;
    }
  };
  const int grid = gridDim.x;
  Work w;
  PlanItem ahead;
  const int start = blockIdx.x;
  if (start < count) w = work_of(p, item_at(p, items, start), start, S::kHeads);
  if (start + grid < count) ahead = item_at(p, items, start + grid);
  ptx::wait_for_earlier_kernels();
  if (start < count && !w.empty()) load_queries(w);
  for (int index = start; index < count; index += grid) {
    Work next;
    if (index + grid < count) next = work_of(p, ahead, index + grid, S::kHeads);
    if (index + 2 * grid < count) ahead = item_at(p, items, index + 2 * grid);
    const bool more = index + grid < count && !next.empty();
    if (w.empty()) {
      if (more) load_queries(next);
      w = next;
      continue;
    }
    const int blocks = w.blocks();

    // ---- scores: s[key tile][column][4], keys 16 tile + g and + 8, heads 2t and 2t + 1
    float scores[4][Columns][4] = {};
    if (warp < blocks) {
      const Place mine = behind<S>(begin, warp);
      ptx::barrier_wait(ptx::shared_address(&s.full[mine.stage]), mine.parity);
      const uint32_t base = ptx::shared_address(s.stages[mine.stage]);
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
#pragma unroll
        for (int m = 0; m < 4; ++m) {
          uint32_t a[4];  // matrices: keys 0-7, keys 8-15, then the same for the next 8 d
          ptx::load_matrices(a, piece_address<HeadDim>(base, m * 16 + lane % 16, k * 16 + lane / 16 * 8));
#pragma unroll
          for (int n = 0; n < Columns; ++n) ptx::multiply_16x8x16(scores[m][n], a, q[k][n][0], q[k][n][1]);
        }
      }
      __syncwarp();
      if (lane < kWarps) ptx::barrier_arrive(ptx::shared_address(&s.empty[mine.stage]));
    }
    if (more) load_queries(next);
    const int first_key = (w.first_block() + warp) * kBlock;
    const bool whole = w.sees_all(first_key);
    const auto visible = [&](int m, int i) {
      const int key = first_key + m * 16 + g + i / 2 * 8;
      return w.sees(key);
    };
    if (warp < blocks) {
#pragma unroll
      for (int n = 0; n < Columns; ++n) {
        float largest[2] = {-kInfinity, -kInfinity};
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (whole || visible(m, i)) largest[i % 2] = fmaxf(largest[i % 2], scores[m][n][i]);
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
#pragma unroll
          for (int i = 0; i < 2; ++i) largest[i] = fmaxf(largest[i], __shfl_xor_sync(~0u, largest[i], step));
        if (g == 0) s.largest[warp][n * 8 + t * 2] = largest[0], s.largest[warp][n * 8 + t * 2 + 1] = largest[1];
      }
    }
    ptx::named_barrier_sync_roles(kScored, S::kConsumers);

    // ---- softmax
#pragma unroll
    for (int n = 0; n < Columns; ++n) {
      float reference[2] = {-kInfinity, -kInfinity}, scale[2] = {1.0f, 1.0f}, offset[2];
      for (int b = 0; b < blocks; ++b) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          scale[i] = pass_block(p, s.largest[b][n * 8 + t * 2 + i], reference[i]);
          if (b == warp) offset[i] = numerics::attention_offset(reference[i]);
        }
        if (b == warp && g == 0) s.scale[b][n * 8 + t * 2] = scale[0], s.scale[b][n * 8 + t * 2 + 1] = scale[1];
      }
      if (warp >= blocks) continue;
      uint32_t bits = 0;
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          scores[m][n][i] = numerics::fma(scores[m][n][i], p.step, offset[i % 2]);
          bits |= __float_as_uint(scores[m][n][i]);
        }
      if (whole && !__any_sync(~0u, (bits & numerics::kAttentionOutside) != 0)) {
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i) scores[m][n][i] = numerics::attention_weight_inside(scores[m][n][i]);
      } else {
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            scores[m][n][i] = whole || visible(m, i) ? numerics::attention_weight(scores[m][n][i]) : 0.0f;
      }
#pragma unroll
      for (int m = 0; m < 4; ++m)
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          const int key = warp * kBlock + m * 16 + g + i / 2 * 8;
          s.weights[n * 8 + t * 2][key] = numerics::bf(scores[m][n][i]).bits;
          s.weights[n * 8 + t * 2 + 1][key] = numerics::bf(scores[m][n][i + 1]).bits;
        }
    }
    ptx::named_barrier_sync_roles(kScored, S::kConsumers);

    // ---- values: o[column][4], d 16 warp + g and + 8, heads 2t and 2t + 1
    float o[Columns][4] = {};
    if (warp < kTiles) {
      // Matrices, transposed: keys 0-7 of d 0-7, of d 8-15, then keys 8-15. Opaque: else the compiler makes them again in every
      // block, where all wait for them.
      uint32_t pieces[kBlock / 16];
#pragma unroll
      for (int k = 0; k < kBlock / 16; ++k) {
        pieces[k] = piece_address<HeadDim>(0, k * 16 + lane % 8 + lane / 16 * 8, warp * 16 + lane / 8 % 2 * 8);
        asm volatile("" : "+r"(pieces[k]));
      }
      Place at = behind<S>(begin, blocks);
      for (int b = 0; b < blocks; ++b) {
        ptx::barrier_wait(ptx::shared_address(&s.full[at.stage]), at.parity);
        const uint32_t base = ptx::shared_address(s.stages[at.stage]);
        const int block_key = (w.first_block() + b) * kBlock;
#pragma unroll
        for (int n = 0; n < Columns; ++n) {
          const float2 scale = *reinterpret_cast<const float2*>(&s.scale[b][n * 8 + t * 2]);
          if (b == 0 || !__any_sync(~0u, scale.x != 1.0f || scale.y != 1.0f)) continue;
#pragma unroll
          for (int i = 0; i < 4; ++i) o[n][i] = numerics::mul(o[n][i], i % 2 ? scale.y : scale.x);
        }
        const auto multiply = [&](auto masked) {
#pragma unroll
          for (int k = 0; k < kBlock / 16; ++k) {
            uint32_t a[4];
            ptx::load_matrices_transposed(a, base + pieces[k]);
            if constexpr (masked) {
              const int key = block_key + k * 16 + t * 2;
              const uint32_t low = w.sees_pair(key), high = w.sees_pair(key + 8);
              a[0] &= low, a[1] &= low, a[2] &= high, a[3] &= high;
            }
#pragma unroll
            for (int n = 0; n < Columns; ++n) {
              const uint16_t* weights = &s.weights[n * 8 + g][b * kBlock + k * 16 + t * 2];
              ptx::multiply_16x8x16(o[n], a, *reinterpret_cast<const uint32_t*>(weights),
                                    *reinterpret_cast<const uint32_t*>(weights + 8));
            }
          }
        };
        if (w.sees_all(block_key))
          multiply(std::false_type{});
        else  // what another slot holds may be an infinity, which a weight of +0 does not silence
          multiply(std::true_type{});
        __syncwarp();
        if (lane < kReleases) ptx::barrier_arrive(ptx::shared_address(&s.empty[at.stage]));
        at = behind<S>(at, 1);
      }
    }
    begin = behind<S>(begin, 2 * blocks);

    const bool direct = w.item.states < 0;
    if (direct) ptx::named_barrier_sync_roles(kSums, S::kConsumers);
    if (warp < kTiles) {
#pragma unroll
      for (int n = 0; n < Columns; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = n * 8 + t * 2 + i, d = warp * 16 + g;
          if (column >= w.heads) continue;
          const int head = query_head<S>(p, w, column);
          if (direct) {
            Bf16* y = p.y + w.item.row * p.y_stride + head * HeadDim + d;
            const float reciprocal = reciprocal_of(s.l[column]);
            y[0] = output_of(o[n][i], reciprocal);
            y[8] = output_of(o[n][i + 2], reciprocal);
          } else {
            float* state = state_of(p, w.item.states, 1, w.split, 0, head) + d;
            state[0] = o[n][i];
            state[8] = o[n][i + 2];
          }
        }
    }
    w = next;
  }
}

}  // namespace

bool takes_decode(const AttentionParameters& p) { return p.head_dim == 64 || p.head_dim == 128; }

void launch_decode(const Device& device, const AttentionParameters& p, int64_t group) {
  if (device.profile() == Profile::kPortable)
    launch_portable_decode(device, p, group);
  else if (p.head_dim == 128)
    group <= 8 ? launch_blocks<Shared<128, 1>>(device, p, group) : launch_blocks<Shared<128, 2>>(device, p, group);
  else
    group <= 8 ? launch_blocks<Shared<64, 1>>(device, p, group) : launch_blocks<Shared<64, 2>>(device, p, group);
}

}  // namespace invar::cuda
