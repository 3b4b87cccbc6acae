// The schedule of `portable` for many rows: a block of 256 threads has a tile of rows x 128 outputs, its chains in registers.
//
// 16 k at a time go to shared memory as fp32, the next 16 being on their way in registers. At a leaf's end the chains' values
// join the fold, at a segment's end the fold joins the tree: both wait in shared memory, a slot of the tile's size each, since
// the chains fill the registers.
#pragma once

#include "kernels/linear/cuda/portable_layout.h"
#include "kernels/linear/cuda/portable_nodes.cuh"
#include "kernels/linear/cuda/portable_plan.h"

namespace invar::cuda::portable {

struct TileProblem {
  const Bf16* x;
  int64_t x_stride;
  const uint32_t* weights;
  int64_t inputs;
  bool wide_stores;  // four outputs of y at once
};

__device__ inline float4 add4(float4 a, float4 b) {
  return {numerics::add(a.x, b.x), numerics::add(a.y, b.y), numerics::add(a.z, b.z), numerics::add(a.w, b.w)};
}

// Thread: kThreadRows x 8 outputs. Thread (tm, tn) of 16 x 16 has rows 4 tm + 64 i .. + 3 and outputs 4 tn .. + 3, 64 + 4 tn ..
// + 3.
template <int kThreadRows, int kUnroll>
__global__ void __launch_bounds__(kTileThreads, 1)
    tiles(const __grid_constant__ LeafOrder order, const __grid_constant__ Target target, const __grid_constant__ TileProblem p) {
  extern __shared__ __align__(1024) std::byte shared[];
  constexpr int kRows = kThreadRows * 16, kQuads = kThreadRows / 4, kXPieces = kRows * kTileK / 8 / kTileThreads;
  float* const stages = reinterpret_cast<float*>(shared);
  float4* const slots = reinterpret_cast<float4*>(shared + 2 * tile_stage_bytes(kRows));
  constexpr int kStageFloats = (kRows + kTileOutputs) * kTileK;
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int tm = warp / 2 * 4 + lane / 8, tn = warp % 2 * 8 + lane % 8;
  const int64_t first_output = blockIdx.x * int64_t{kTileOutputs}, first_row = blockIdx.y * int64_t{kRows};
  asm volatile("griddepcontrol.launch_dependents;");

  // What this thread brings: kXPieces pieces of 8 k of one row, and 4 outputs x 2 k of the weights.
  const int64_t x_row = first_row + t % kRows < target.rows ? first_row + t % kRows : target.rows - 1;
  const Bf16* x_from = p.x + x_row * p.x_stride + t / kRows * (kXPieces * 8);
  const int panel = t / 128, line = t / 16 % 8;
  const bool there = first_output + panel * kPanel < panels(target.outputs) * kPanel;
  const uint32_t* w_from = p.weights + (first_output / kPanel + panel) * panel_words(p.inputs) + line * kPanel + t % 16 * 4;
  uint4 x_next[kXPieces], w_next = {};
  const auto fetch = [&](int64_t k) {
#pragma unroll
    for (int i = 0; i < kXPieces; ++i) x_next[i] = *reinterpret_cast<const uint4*>(x_from + k + i * 8);
    if (there) w_next = __ldg(reinterpret_cast<const uint4*>(w_from + k / 2 * kPanel));
  };
  const auto put = [&](float* stage) {
    float* xs = stage + t / kRows * (kXPieces * 8) * kRows + t % kRows;
#pragma unroll
    for (int i = 0; i < kXPieces; ++i) {
      const uint32_t words[4] = {x_next[i].x, x_next[i].y, x_next[i].z, x_next[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        xs[(i * 8 + 2 * j) * kRows] = numerics::bits_float(words[j] << 16);
        xs[(i * 8 + 2 * j + 1) * kRows] = numerics::bits_float(words[j] & 0xffff0000u);
      }
    }
    float4* ws = reinterpret_cast<float4*>(stage + kRows * kTileK + line * 2 * kTileOutputs + panel * 64 + t % 16 * 4);
    ws[0] = {numerics::bits_float(w_next.x << 16), numerics::bits_float(w_next.y << 16), numerics::bits_float(w_next.z << 16),
             numerics::bits_float(w_next.w << 16)};
    ws[kTileOutputs / 4] = {numerics::bits_float(w_next.x & 0xffff0000u), numerics::bits_float(w_next.y & 0xffff0000u),
                            numerics::bits_float(w_next.z & 0xffff0000u), numerics::bits_float(w_next.w & 0xffff0000u)};
  };

  float4 acc[kThreadRows][2];
  const auto clear = [&] {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i) acc[i][0] = acc[i][1] = float4{0, 0, 0, 0};
  };
  // A slot's four values of this thread.
  const auto slot = [&](int s, int i, int h) -> float4& { return slots[((s * kThreadRows + i) * 2 + h) * kTileThreads + t]; };
  const auto row_of = [&](int i) { return first_row + i / 4 * 64 + tm * 4 + i % 4; };
  const auto output_of = [&](int h) { return first_output + h * 64 + tn * 4; };
  const auto node_place = [&](int node, int i, int h) {
    return target.partials + node * target.node_stride + row_of(i) * target.outputs + output_of(h);
  };
  const auto each = [&](const auto& f) {
#pragma unroll
    for (int i = 0; i < kThreadRows; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) f(i, h, acc[i][h]);
  };
  // The tree's operands that wait: levels 0 and 1 in slots 1 and 2; level 2 where the root will be.
  const auto join_tree = [&](int segment) {
    for (int level = 0, index = segment;; ++level, index /= 2) {
      for (int node = 0; node < target.nodes; ++node)
        if (target.level[node] == level && target.index[node] == index) {
          each([&](int i, int h, float4 v) {
            if (row_of(i) >= target.rows) return;
            const float values[4] = {v.x, v.y, v.z, v.w};
            for (int j = 0; j < 4; ++j)
              if (output_of(h) + j < target.outputs) node_place(node, i, h)[j] = values[j];
          });
          return;
        }
      const uint32_t sibling = segments_of(level, index ^ 1);
      if (!(target.held & sibling)) continue;  // a missing operand is skipped
      if (level < 2) {
        if (index % 2 == 0) {
          each([&](int i, int h, float4 v) { slot(1 + level, i, h) = v; });
          return;
        }
        each([&](int i, int h, float4& v) { v = add4(slot(1 + level, i, h), v); });
      } else {
        each([&](int i, int h, float4& v) {
          if (row_of(i) >= target.rows) return;
          float values[4] = {v.x, v.y, v.z, v.w};
          for (int j = 0; j < 4; ++j)
            if (output_of(h) + j < target.outputs) {
              float* place = node_place(0, i, h) + j;
              if (index % 2 == 0)
                *place = values[j];
              else
                values[j] = numerics::add(*place, values[j]);
            }
          v = {values[0], values[1], values[2], values[3]};
        });
        if (index % 2 == 0) return;
      }
    }
  };

  asm volatile("griddepcontrol.wait;" ::: "memory");
  fetch(0);
  put(stages);
  __syncthreads();
  clear();
  int span = 0;
  while (order.begin[span + 1] == 0) ++span;
  int64_t leaf_end = min(order.begin[span] + order.leaf, order.begin[span + 1]);
  int buffer = 0;
  for (int64_t k = 0; k < p.inputs; k += kTileK, buffer ^= 1) {
    const bool more = k + kTileK < p.inputs;
    if (more) fetch(k + kTileK);
    const float* xs = stages + buffer * kStageFloats + tm * 4;
    const float* ws = stages + buffer * kStageFloats + kRows * kTileK + tn * 4;
    // The next k's operands are on their way to registers while this one's are multiplied.
    float4 x[2][kQuads], w[2][2];
    const auto load = [&](int j, float4(&x_of_k)[kQuads], float4(&w_of_k)[2]) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) x_of_k[q] = *reinterpret_cast<const float4*>(xs + j * kRows + q * 64);
#pragma unroll
      for (int h = 0; h < 2; ++h) w_of_k[h] = *reinterpret_cast<const float4*>(ws + j * kTileOutputs + h * 64);
    };
    load(0, x[0], w[0]);
    // Unrolled no further: a loop of more than some 10 KB would wait for its instructions.
#pragma unroll kUnroll
    for (int j = 0; j < kTileK; ++j) {
      load((j + 1) % kTileK, x[(j + 1) % 2], w[(j + 1) % 2]);
#pragma unroll
      for (int i = 0; i < kThreadRows; ++i) {
        const float4 quad = x[j % 2][i / 4];
        const float v = i % 4 == 0 ? quad.x : i % 4 == 1 ? quad.y : i % 4 == 2 ? quad.z : quad.w;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float4 weight = w[j % 2][h];
          acc[i][h].x = numerics::fma(v, weight.x, acc[i][h].x);
          acc[i][h].y = numerics::fma(v, weight.y, acc[i][h].y);
          acc[i][h].z = numerics::fma(v, weight.z, acc[i][h].z);
          acc[i][h].w = numerics::fma(v, weight.w, acc[i][h].w);
        }
      }
    }
    if (more) put(stages + (buffer ^ 1) * kStageFloats);
    __syncthreads();
    if (k + kTileK < leaf_end) continue;
    // A leaf ends.
    const bool opens = leaf_end - order.begin[span] <= order.leaf, closes = leaf_end == order.begin[span + 1];
    if (!opens) each([&](int i, int h, float4& v) { v = add4(slot(0, i, h), v); });
    if (!closes) {
      each([&](int i, int h, float4 v) { slot(0, i, h) = v; });
    } else {
      if (target.row_parallel) join_tree(span);
      if (!more) break;
      do ++span;
      while (order.begin[span] == order.begin[span + 1]);
    }
    leaf_end = min(static_cast<int64_t>(leaf_end) + order.leaf, static_cast<int64_t>(order.begin[span + 1]));
    clear();
  }
  if (target.row_parallel) return;
  each([&](int i, int h, float4 v) {
    const int64_t m = row_of(i), n = output_of(h);
    if (m >= target.rows) return;
    float values[4] = {v.x, v.y, v.z, v.w};
    if (p.wide_stores && n + 4 <= target.outputs) {
      ushort4 rounded;
      for (int j = 0; j < 4 && target.bias; ++j) values[j] = numerics::add(values[j], numerics::widen(target.bias[n + j]));
      rounded.x = numerics::bf(values[0]).bits, rounded.y = numerics::bf(values[1]).bits;
      rounded.z = numerics::bf(values[2]).bits, rounded.w = numerics::bf(values[3]).bits;
      *reinterpret_cast<ushort4*>(target.y + m * target.y_stride + n) = rounded;
    } else {
      for (int j = 0; j < 4; ++j)
        if (n + j < target.outputs) store_column(target, m, n + j, values[j]);
    }
  });
}

}  // namespace invar::cuda::portable
