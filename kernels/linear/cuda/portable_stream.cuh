// The schedule of `portable` for few rows: the weights stream from memory once, and everything else hides behind them.
//
// A warp has two leaves of a panel, one for each half: 16 lanes with four outputs each. It copies its leaves to its own ring in
// shared memory (bulk copies, begun before the previous kernel has ended, since weights are constants), and its rows of x once. A
// leaf's values go to shared memory; when the block (or the cluster, whose blocks share the leaves of a panel) has them all, a
// thread an output folds them in order. Blocks then go on with their next panel, whose first stages are already on their way.
#pragma once

#include "kernels/linear/cuda/portable_layout.h"
#include "kernels/linear/cuda/portable_nodes.cuh"
#include "kernels/linear/cuda/portable_plan.h"

namespace invar::cuda::portable {

struct StreamProblem {
  const Bf16* x;
  int64_t x_stride;
  const uint32_t* weights;
  int64_t inputs;
  int stages, clusters;
  // Groups of rows with weights of their own, one for each blockIdx.y; written by earlier kernels. Otherwise null.
  const std::byte* const* group_weights;
  const int64_t* offsets;
};

__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
__device__ inline void wait_barrier(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ inline void expect_bytes(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ inline void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
               "r"(bytes), "r"(barrier)
               : "memory");
}
__device__ inline void bulk_copy_once(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}
__device__ inline uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
  return v;
}
__device__ inline float low(uint32_t pair) { return numerics::bits_float(pair << 16); }
__device__ inline float high(uint32_t pair) { return numerics::bits_float(pair & 0xffff0000u); }

__device__ inline float load_shared_float(uint32_t address) {
  float v;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}
// The address in the cluster of what block `rank` has at `address` of its shared memory.
__device__ inline uint32_t address_in_block(uint32_t address, uint32_t rank) {
  uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
__device__ inline float load_cluster_float(uint32_t address) {
  float v;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}
// One lane of a converged warp, chosen so that the compiler knows it is one: copies it issues then take no loop over lanes.
__device__ inline bool elect() {
  uint32_t chosen;
  asm volatile("{\n.reg .pred one;\nelect.sync _|one, 0xffffffff;\nselp.b32 %0, 1, 0, one;\n}" : "=r"(chosen));
  return chosen != 0;
}

// One lane announces `bytes` and starts up to two copies of half a stage. Without a branch, so that multiply-adds can go between.
__device__ inline void copy_halves(uint32_t barrier, uint32_t bytes, uint32_t to0, const void* from0, bool first, uint32_t to1,
                                   const void* from1, bool second, uint64_t policy) {
  asm volatile(
      "{\n.reg .pred one, a, b;\n"
      "elect.sync _|one, 0xffffffff;\n"
      "setp.ne.and.b32 a, %5, 0, one;\n"
      "setp.ne.and.b32 b, %8, 0, one;\n"
      "@one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n"
      "@a cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%3], [%4], %2, [%0], %9;\n"
      "@b cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%6], [%7], %2, [%0], %9;\n}" ::"r"(
          barrier),
      "r"(bytes), "n"(kStageBytes / 2), "r"(to0), "l"(from0), "r"(static_cast<int>(first)), "r"(to1), "l"(from1),
      "r"(static_cast<int>(second)), "l"(policy)
      : "memory");
}

// kRows: rows of a pass. A block has one pass, or, with groups, all passes of its group.
template <int kRows, bool kGrouped>
__global__ void __launch_bounds__(stream_warps(kRows) * 32, 1)
    stream(const __grid_constant__ LeafOrder order, const __grid_constant__ Target target,
           const __grid_constant__ StreamProblem p) {
  extern __shared__ __align__(1024) std::byte shared[];
  constexpr int kLeaf = numerics::kColumnLeafPortable, kFoldRows = fold_rows(kRows);
  constexpr uint32_t kHalfStage = kStageBytes / 2;
  const int lane = threadIdx.x % 32, half = lane / 16, warps = blockDim.x / 32;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  uint32_t rank, blocks;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  const int cluster_id = blockIdx.x / blocks;
  const int64_t all_panels = panels(target.outputs);
  int64_t first_row = blockIdx.y * int64_t{kRows}, end_row = min(first_row + kRows, target.rows);
  const auto* weights = reinterpret_cast<const std::byte*>(p.weights);
  if constexpr (kGrouped) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    first_row = p.offsets[blockIdx.y];
    end_row = p.offsets[blockIdx.y + 1];
    if (first_row == end_row) return;
    weights = p.group_weights[blockIdx.y];
  }

  // The two leaves of this warp. A leaf behind the last one has no steps.
  const int leaf = 2 * (static_cast<int>(rank) * warps + warp);
  LeafRange ranges[2] = {{0, 0}, {0, 0}};
#pragma unroll 1
  for (int s = 0; s < order.spans; ++s)
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (leaf + h >= order.first_leaf[s] && leaf + h < order.first_leaf[s + 1]) ranges[h] = order.whole_leaf(s, leaf + h);
  const int steps_of[2] = {(ranges[0].end - ranges[0].begin) / kStageK, (ranges[1].end - ranges[1].begin) / kStageK};
  const int most_steps = max(steps_of[0], steps_of[1]), steps = half ? steps_of[1] : steps_of[0];
  const int panels_here = cluster_id < all_panels ? static_cast<int>((all_panels - cluster_id - 1) / p.clusters) + 1 : 0;

  const StreamShared layout = stream_shared(kRows, warps, p.stages);
  const uint32_t base = shared_address(shared), barriers = base + warp * (kMostStages + 1) * 8,
                 x_barrier = barriers + kMostStages * 8;
  const uint32_t ring = base + static_cast<uint32_t>(layout.rings) + warp * p.stages * kStageBytes;
  const uint32_t x_of_warp = base + static_cast<uint32_t>(layout.x) + warp * 2 * kRows * kLeaf * 2;
  const uint32_t x_of_leaf = x_of_warp + half * kRows * kLeaf * 2;
  if (elect()) {
#pragma unroll 1
    for (int i = 0; i < p.stages; ++i) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barriers + i * 8) : "memory");
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(x_barrier) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncwarp();
  asm volatile("griddepcontrol.launch_dependents;");

  uint64_t policy;
  if (gridDim.y == 1)
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  else
    asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));  // another pass reads the same weights
  const int64_t panel_bytes = panel_words(p.inputs) * 4;
  const std::byte* const first_panel = weights + panel_bytes * cluster_id;
  const std::byte* next = first_panel;
  const int64_t from0 = ranges[0].begin / 2 * kPanel * 4, from1 = ranges[1].begin / 2 * kPanel * 4;
  int next_step = 0, next_stage = 0, panels_left = most_steps ? panels_here : 0;
  const auto fill = [&] {  // the stage that comes next, if any; by the whole warp
    if (panels_left == 0) return;
    const bool first = next_step < steps_of[0], second = next_step < steps_of[1];
    const uint32_t to = ring + next_stage * kStageBytes;
    const std::byte* from = next + next_step * kHalfStage;
    copy_halves(barriers + next_stage * 8, (first ? kHalfStage : 0) + (second ? kHalfStage : 0), to, from + from0, first,
                to + kHalfStage, from + from1, second, policy);
    if (++next_stage == p.stages) next_stage = 0;
    if (++next_step == most_steps) next_step = 0, next += panel_bytes * p.clusters, --panels_left;
  };
  // Most of the ring waits until x is asked for: copies are served in turn, and x would come last.
#pragma unroll 1
  for (int i = 0; i < kLeastStages; ++i) fill();

  if constexpr (!kGrouped) asm volatile("griddepcontrol.wait;" ::: "memory");

  const uint32_t values = base + static_cast<uint32_t>(layout.values);
  uint32_t stage = 0, parity = 0;
  float acc[kRows][4];
  const auto load = [&](uint4(&w)[kStageK / 2]) {
    wait_barrier(barriers + stage * 8, parity);
#pragma unroll
    for (int j = 0; j < kStageK / 2; ++j)
      w[j] = load_shared(ring + stage * kStageBytes + half * kHalfStage + j * 256 + lane % 16 * 16);
    if (++stage == static_cast<uint32_t>(p.stages)) stage = 0, parity ^= 1;
  };
  const auto multiply = [&](const uint4(&w)[kStageK / 2], int step) {
    if (step >= steps) return;
    // Two rows at a time: eight chains side by side cover a multiply-add's latency, and four in a row read the same x.
    constexpr int kTogether = kRows < 2 ? 1 : 2;
#pragma unroll
    for (int first = 0; first < kRows; first += kTogether) {
      uint4 xs[kTogether];
#pragma unroll
      for (int m = 0; m < kTogether; ++m) xs[m] = load_shared(x_of_leaf + (first + m) * kLeaf * 2 + step * kStageK * 2);
#pragma unroll
      for (int j = 0; j < kStageK / 2; ++j) {
        const uint32_t words[4] = {w[j].x, w[j].y, w[j].z, w[j].w};
#pragma unroll
        for (int upper = 0; upper < 2; ++upper)
#pragma unroll
          for (int m = 0; m < kTogether; ++m) {
            const uint32_t pair = j == 0 ? xs[m].x : j == 1 ? xs[m].y : j == 2 ? xs[m].z : xs[m].w;
            const float x = upper ? high(pair) : low(pair);
#pragma unroll
            for (int o = 0; o < 4; ++o)
              acc[first + m][o] = numerics::fma(x, upper ? high(words[o]) : low(words[o]), acc[first + m][o]);
          }
      }
    }
  };
  const auto release = [&] {
    __syncwarp();  // all lanes have read the stage
    fill();
  };
  const auto barrier = [&] {  // of all threads that share the panel
    if (blocks == 1) {
      __syncthreads();
    } else {
      __syncwarp();
      asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
  };
  // Folds value q of the rows in shared memory, span by span; take(span, value) has the results in ascending order.
  const auto fold = [&](int q, const auto& take) {
    constexpr int kAhead = 8;  // reads under way at once: another block's memory is hundreds of cycles away
    const int leaves = order.leaves(), in_a_block = warps * 2;
    int span = 0, left = order.first_leaf[1], in_block = 0;
    uint32_t block = 0, place = blocks == 1 ? values + q * 4 : address_in_block(values + q * 4, 0);
    bool first = true;
    float value = 0.0f;
    for (int l = 0; l < leaves; l += kAhead) {
      float v[kAhead];
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (l + i < leaves) {
          if (in_block == in_a_block) in_block = 0, place = address_in_block(values + q * 4, ++block);
          const uint32_t address = place + in_block++ * (kFoldRows * 64 * 4);
          v[i] = blocks == 1 ? load_shared_float(address) : load_cluster_float(address);
        }
#pragma unroll
      for (int i = 0; i < kAhead; ++i)
        if (l + i < leaves) {
          while (left == 0) ++span, left = order.first_leaf[span + 1] - order.first_leaf[span];  // past empty spans
          value = first ? v[i] : numerics::add(value, v[i]);
          first = --left == 0;
          if (first) take(span, value);
        }
    }
  };

  for (uint32_t pass = 0; first_row < end_row; first_row += kRows, ++pass) {
    const int rows = static_cast<int>(min(static_cast<int64_t>(kRows), end_row - first_row));
    if (pass > 0) {  // the ring is empty; the weights are in the second-level cache now
      next = first_panel;
      panels_left = most_steps ? panels_here : 0;
#pragma unroll 1
      for (int i = 0; i < kLeastStages; ++i) fill();
    }
    if (elect()) {
      expect_bytes(x_barrier, rows * (steps_of[0] + steps_of[1]) * kStageK * 2);
#pragma unroll 1
      for (int m = 0; m < rows; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (steps_of[h] > 0)
            bulk_copy(x_of_warp + (h * kRows + m) * kLeaf * 2, p.x + (first_row + m) * p.x_stride + ranges[h].begin,
                      steps_of[h] * kStageK * 2, x_barrier);
    }
#pragma unroll 1
    for (int i = kLeastStages; i < p.stages; ++i) fill();
    wait_barrier(x_barrier, pass & 1);
    for (int i = 0; i < panels_here; ++i) {
#pragma unroll
      for (int m = 0; m < kRows; ++m)
#pragma unroll
        for (int o = 0; o < 4; ++o) acc[m][o] = 0.0f;
      // The next stage's weights are on their way to registers while this one's are multiplied.
      uint4 w[kStageK / 2], w_next[kStageK / 2];
      if (most_steps > 0) load(w_next);
#pragma unroll 1
      for (int step = 0; step < most_steps; ++step) {
#pragma unroll
        for (int j = 0; j < kStageK / 2; ++j) w[j] = w_next[j];
        if (step + 1 < most_steps) load(w_next);
        multiply(w, step);
        release();
      }

      const int64_t first_output = (cluster_id + int64_t{i} * p.clusters) * kPanel;
#pragma unroll
      for (int first = 0; first < kRows; first += kFoldRows) {
        if (first >= rows) break;
#pragma unroll
        for (int m = 0; m < kFoldRows; ++m)
          if (first + m < rows)
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(
                             values + (((warp * 2 + half) * kFoldRows + m) * 64 + lane % 16 * 4) * 4),
                         "f"(acc[first + m][0]), "f"(acc[first + m][1]), "f"(acc[first + m][2]), "f"(acc[first + m][3])
                         : "memory");
        barrier();
        const int count = min(kFoldRows, rows - first) * 64, threads = blockDim.x;
        for (int q = static_cast<int>(rank) * threads + threadIdx.x; q < count; q += static_cast<int>(blocks) * threads) {
          const int64_t m = first_row + first + q / 64, n = first_output + q % 64;
          const bool there = n < target.outputs;
          if (target.row_parallel) {
            TreeOfSegments tree(target, m, n, there);
            fold(q, [&](int span, float value) { tree.take(span, value); });
          } else {
            fold(q, [&](int, float value) {
              if (there) store_column(target, m, n, value);
            });
          }
        }
        barrier();  // nobody writes values or ends while others read
      }
    }
  }
}

}  // namespace invar::cuda::portable
