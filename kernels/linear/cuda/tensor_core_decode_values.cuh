// What becomes of a tile's values in the decode schedule: they are written, or they meet those of other leaves in the shared
// memory of the block that merges them, and then are written; or they leave for RowTargets.
#pragma once

#include "kernels/linear/cuda/tensor_core_decode_block.cuh"
#include "kernels/linear/cuda/tensor_core_decode_targets.cuh"

namespace invar::cuda::tc::decode {

// The four values that wgmma leaves in a thread for eight tokens are a piece of sixteen bytes; pieces are numbered through a
// tile: [warp, those of all row groups][token tile][lane]. Value i of a piece is output + i / 2 * 8, token + i mod 2.
template <int kTokens>
struct Piece {
  static constexpr int kTiles = kTokens / 8;
  static __device__ int number(int warp, int tile) { return (warp * kTiles + tile) * 32 + static_cast<int>(threadIdx.x % 32); }
  static __device__ int output(int piece, int i) { return piece / (32 * kTiles) * 16 + piece % 32 / 4 + (i >> 1) * 8; }
  static __device__ int token(int piece, int i) { return piece / 32 % kTiles * 8 + piece % 4 * 2 + (i & 1); }
};

// Keeps what depends on `value` from being computed before this point: many addresses, alive in registers all along k.
__device__ inline int unforeseen(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// One warp's part of a tile that needs no merging. One address for all rows: registers are few here.
template <int kTokens, bool kRow, bool kGrouped, bool kSends, class Work>
__device__ void write_values(const DecodeTask& task, const Work& work, int output_warp, float (&values)[kTokens / 2],
                             uint32_t turn) {
  if constexpr (kSends) {
    const int64_t area = area_in_turn(task.targets, turn);
    const int lane = unforeseen(static_cast<int>(threadIdx.x % 32)), token = neighbours_token(lane);
    const int in_tile = output_warp * 16 + neighbours_output(lane);
    const bool valid = in_tile < min(task.tile_outputs, task.outputs - work.output);
    int64_t at = area + (work.row + token) * int64_t{task.outputs} + work.output + in_tile;
#pragma unroll
    for (int i = 0; i < kTokens / 8; ++i, at += 8 * int64_t{task.outputs}) {
      float v[4] = {values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
      gather_neighbours(v);
      if (valid && i * 8 + token < work.rows) send_four(task.targets, at, v);
    }
    return;
  }
  const int first = unforeseen(Piece<kTokens>::number(output_warp, 0)), token = Piece<kTokens>::token(first, 0);
  const int in_tile = Piece<kTokens>::output(first, 0), output = work.output + in_tile;
  const int last = min(task.tile_outputs, task.outputs - work.output);
  const bool valid[2] = {in_tile < last, in_tile + 8 < last};
  const auto for_rows = [&](int64_t stride, int column, const auto& put) {
    int64_t at = (work.row + token) * stride + column;
#pragma unroll
    for (int i = 0; i < kTokens / 8; ++i, at += 8 * stride)
#pragma unroll
      for (int j = 0; j < 2; ++j)
        if (i * 8 + token + j < work.rows) put(at + j * stride, values[4 * i + j], values[4 * i + j + 2]);
  };
  if constexpr (kRow) {
    for_rows(task.outputs, output, [&](int64_t at, float v, float w) {
      if (kGrouped && task.y) {
        if (valid[0]) task.y[at] = numerics::bf(v);
        if (valid[1]) task.y[at + 8] = numerics::bf(w);
        return;
      }
      if (valid[0]) task.partials[at] = v;
      if (valid[1]) task.partials[at + 8] = w;
    });
  } else {
    if (task.bias) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float bias = valid[half] ? numerics::widen(task.bias[output + 8 * half]) : 0.0f;
#pragma unroll
        for (int i = 0; i < kTokens / 4; ++i) {
          float& v = values[i / 2 * 4 + 2 * half + i % 2];
          v = numerics::add(v, bias);
        }
      }
    }
    if (task.gated_width) {
      const int column = output / 16 * 8 + output % 8;
      if (column < task.gated_width)
        for_rows(task.y_stride, column,
                 [&](int64_t at, float v, float w) { task.y[at] = numerics::silu_mul(numerics::bf(v), numerics::bf(w)); });
    } else if (task.y) {
      for_rows(task.y_stride, output, [&](int64_t at, float v, float w) {
        if (valid[0]) task.y[at] = numerics::bf(v);
        if (valid[1]) task.y[at + 8] = numerics::bf(w);
      });
    } else {
      for_rows(task.y_stride, output, [&](int64_t at, float v, float w) {
        if (valid[0]) task.y_fp32[at] = v;
        if (valid[1]) task.y_fp32[at + 8] = w;
      });
    }
  }
}

// One warp's part of one leaf's values goes to the blocks that merge it: over the cluster as copies that complete on the
// merging block's barrier, inside one block as plain stores.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void send_values(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block, const float (&values)[kTokens / 2],
                            int slot, int output_warp) {
  const int share = block.task.share;
  const int first = unforeseen(Piece<kTokens>::number(output_warp, 0));
#pragma unroll
  for (int i = 0; i < Piece<kTokens>::kTiles; ++i) {
    const int piece = first + i * 32;
    const float4 v{values[4 * i], values[4 * i + 1], values[4 * i + 2], values[4 * i + 3]};
    if (block.task.cluster == 1) {
      ptx::store_shared_float4(block.values() + (slot * share + piece) * 16, v);
    } else {
      const int to = piece / share;
      const uint32_t place = block.values() + (slot * share + piece - to * share) * 16;
      ptx::send_float4(ptx::peer_address(place, to), v, ptx::peer_address(block.merged(), to));
    }
  }
}

template <int kValues>
__device__ void copy(const float (&from)[kValues], float (&to)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) to[i] = from[i];
}
template <int kValues>
__device__ void add(const float (&left)[kValues], const float (&right)[kValues], float (&sum)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) sum[i] = numerics::add(left[i], right[i]);
}

// The share of a tile that this block merges, by whole warps that send it: one node, whose slots are a power of two.
template <int kTokens, bool kRow, bool kGrouped, int kDepth, bool kSends>
__device__ void merge_and_send(const Block<kTokens, kRow, kGrouped, kDepth, kSends>& block,
                               const typename Block<kTokens, kRow, kGrouped, kDepth, kSends>::Work& work, int thread, int threads,
                               int64_t area) {
  constexpr int kTiles = kTokens / 8;
  const DecodeTask& task = block.task;
  const int lane = thread % 32, token = neighbours_token(lane), in_warp = neighbours_output(lane);
  const int last = min(task.tile_outputs, task.outputs - work.output);
  // In runs of 32 pieces: a warp's outputs and eight tokens.
  const int begin = block.k_rank * task.share / 32, count = min(task.share, block.pieces() - begin * 32) / 32;
  const auto merged = [&](int run, float(&v)[4]) {
    const uint32_t from = block.values() + ((run - begin) * 32 + lane) * 16, step = task.share * 16;
    const auto load = [&](int slot, float(&w)[4]) {
      const float4 piece = ptx::load_shared_float4(from + slot * step);
      w[0] = piece.x, w[1] = piece.y, w[2] = piece.z, w[3] = piece.w;
    };
    float a[4], b[4], c[4];
    load(0, v);
    if (task.slots >= 2) load(1, a), add(v, a, v);
    if (task.slots >= 4) load(2, a), load(3, b), add(a, b, a), add(v, a, v);
    if (task.slots == 8) load(4, a), load(5, b), add(a, b, a), load(6, b), load(7, c), add(b, c, b), add(a, b, a), add(v, a, v);
    gather_neighbours(v);
  };
  const auto send = [&](const float(&v)[4], int in_tile, int in_rows) {
    if (in_tile < last && in_rows < work.rows)
      send_four(task.targets, area + (work.row + in_rows) * int64_t{task.outputs} + work.output + in_tile, v);
  };
  const int warp = thread / 32, warps = threads / 32;
  if (begin % (2 * kTiles) == 0 && count % (2 * kTiles) == 0) {
    for (int i = warp; i < count / 2; i += warps) {
      const int run = begin + i / kTiles * (2 * kTiles) + i % kTiles, in_tile = run / kTiles * 16 + in_warp + token % 2 * 16;
      float first[4], second[4];
      merged(run, first);
      merged(run + kTiles, second);
      pair_neighbours(first, second);
      send(first, in_tile, run % kTiles * 8 + token / 2 * 2);
      send(second, in_tile, run % kTiles * 8 + token / 2 * 2 + 1);
    }
  } else {
    for (int run = begin + warp; run < begin + count; run += warps) {
      float v[4];
      merged(run, v);
      send(v, run / kTiles * 16 + in_warp, run % kTiles * 8 + token);
    }
  }
}

// The share of a tile that this block merges, by all its consumers.
template <int kTokens, bool kGrouped, int kDepth, bool kSends>
__device__ void merge_share(const Block<kTokens, true, kGrouped, kDepth, kSends>& block,
                            const typename Block<kTokens, true, kGrouped, kDepth, kSends>::Work& work, int thread, int threads,
                            uint32_t turn) {
  const DecodeTask& task = block.task;
  const int64_t area = kSends ? area_in_turn(task.targets, turn) : 0;
  if constexpr (kSends)
    if (task.subtrees && task.share % 32 == 0) return merge_and_send(block, work, thread, threads, area);
  const int pieces = block.pieces(), begin = block.k_rank * task.share, count = min(task.share, pieces - begin);
  const int last = min(task.tile_outputs, task.outputs - work.output);
  // Half a piece: two outputs of one row.
  for (int half = thread; half < count * 2; half += threads) {
    const int piece = begin + half / 2, j = half % 2;
    const int in_tile = Piece<kTokens>::output(piece, j), token = Piece<kTokens>::token(piece, j);
    if (in_tile >= last || token >= work.rows) continue;
    const int64_t row = work.row + token;
    const int output = work.output + in_tile;
    const uint32_t from = block.values() + (half / 2 * 4 + j) * 4, step = task.share * 16;
    const auto merged = [&](uint32_t at) {
      const auto load = [&](int slot) { return ptx::load_shared_float(at + slot * step); };
      float v = load(0);
      if (task.slots >= 2) v = numerics::add(v, load(1));
      if (task.slots >= 4) v = numerics::add(v, numerics::add(load(2), load(3)));
      if (task.slots == 8) v = numerics::add(v, numerics::add(numerics::add(load(4), load(5)), numerics::add(load(6), load(7))));
      return v;
    };
    const auto write = [&](int64_t at, float v) {
      if (kSends)
        send_value(task.targets, area + at, v);
      else if (kGrouped && task.y)
        task.y[at] = numerics::bf(v);
      else
        task.partials[at] = v;
    };
    if (task.subtrees) {
      const int64_t at = row * task.outputs + output;
      const float v = merged(from), w = merged(from + 8);
      write(at, v);
      if (in_tile + 8 < last) write(at + 8, w);
    } else {
      for (int i = 0; i < 2 && in_tile + 8 * i < last; ++i) {
        float segment[numerics::kSegments];
        int slot = 0;
#pragma unroll
        for (int s = 0; s < numerics::kSegments; ++s) {
          segment[s] = 0;
          if (task.tree.held >> s & 1) segment[s] = ptx::load_shared_float(from + 8 * i + slot++ * step);
        }
        merge_segments(task.tree, segment, [&](int place, float v) {
          const int64_t at = place * task.node_stride + row * task.outputs + output + 8 * i;
          if (kSends)
            send_value(task.targets, area + at, v);
          else
            task.partials[at] = v;
        });
      }
    }
  }
}

}  // namespace invar::cuda::tc::decode
