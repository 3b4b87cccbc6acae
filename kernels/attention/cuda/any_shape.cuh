// Attention of any shape in either profile by a team of 128 threads: 16 query vectors of a KV head against blocks of 64 keys.
// Plain and slow; the other kernels are compared with it where the scalar reference would take too long. A block whose values are
// not all finite is multiplied so that a masked key takes no part in anything, as the order has it. For device code only.
#pragma once

#include "kernels/attention/cuda/kernel.cuh"
#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda::any_shape {

inline constexpr int kVectors = 16;
inline constexpr int kThreads = 128;
inline constexpr int kScorePitch = kBlock + 8;  // floats
inline constexpr int kWeightPitch = kBlock + 8;
inline constexpr int kMostTiles = kMostHeadDim / 8 / (kThreads / 32);

struct Shape {
  int head_dim, padded, pitch;  // padded to k16 groups; elements from one row of q, keys or values to the next
  __host__ __device__ constexpr explicit Shape(int d) : head_dim(d), padded((d + 15) / 16 * 16), pitch(padded + 8) {}
};

struct Shared {
  float scores[kVectors * kScorePitch];
  float weights[kBlock * kVectors];               // portable: [key][vector]
  uint16_t weight_bits[kVectors * kWeightPitch];  // tc: [vector][key]
  float scale[kVectors];                          // of o before a block; of the total at a merge
  float part_scale[kVectors];
  float reference[kVectors], l[kVectors];  // of the split at its end, then of the total
  int first[kVectors], end[kVectors];      // keys the vector sees
  int row[kVectors], tile_row[kVectors], head[kVectors];
};

constexpr size_t shared_bytes(int head_dim) {
  const Shape s(head_dim);
  return sizeof(Shared) + static_cast<size_t>(kVectors + 2 * kBlock) * s.pitch * sizeof(Bf16) +
         static_cast<size_t>(kVectors) * head_dim * sizeof(float);
}

// 128 threads, whole warps of one block of the grid, with a barrier of their own (0 if they are the whole block).
struct Team {
  int tid, barrier;
  __device__ __forceinline__ void sync() const { ptx::named_barrier_sync(barrier, kThreads); }
  __device__ __forceinline__ bool any(bool mine) const { return ptx::named_barrier_any(barrier, kThreads, mine); }
};

__device__ __forceinline__ bool all_finite(const uint4& eight) {
  const auto finite = [](uint32_t two) { return (two & 0x7f80u) != 0x7f80u && (two & 0x7f800000u) != 0x7f800000u; };
  return finite(eight.x) && finite(eight.y) && finite(eight.z) && finite(eight.w);
}

// The value accumulators of a thread; each() calls f(o, k, i, vector, d) for o[k][i]. portable: d = thread, thread + 128 for each
// vector. tc: mma tiles warp, warp + 4, ... of 8 d, and in each warp the denominators: l[0] and l[2] of vectors lane / 4 and + 8.
template <Profile P>
struct Accumulators;
template <>
struct Accumulators<Profile::kPortable> {
  float o[2][kVectors];
  template <class F>
  __device__ __forceinline__ void each(int tid, int head_dim, const F& f) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int d = tid + k * kThreads;
      if (d >= head_dim) continue;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) f(o[k][v], k, v, v, d);
    }
  }
};
template <>
struct Accumulators<Profile::kTc> {
  float o[kMostTiles][4];
  float l[4];
  template <class F>
  __device__ __forceinline__ void each(int tid, int head_dim, const F& f) {
    const int lane = tid % 32;
#pragma unroll
    for (int k = 0; k < kMostTiles; ++k) {
      const int d = (tid / 32 + k * (kThreads / 32)) * 8 + lane % 4 * 2;
      if (d >= head_dim) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) f(o[k][i], k, i, lane / 4 + i / 2 * 8, d + i % 2);
    }
  }
};

__device__ __forceinline__ uint32_t pair_at(const uint16_t* p) { return *reinterpret_cast<const uint32_t*>(p); }

template <Profile P>
__device__ __forceinline__ void scores_of_block(int tid, Shared& s, const Shape& shape, const float* q_wide, const uint16_t* q,
                                                const uint16_t* k) {
  const int lane = tid % 32, g = lane / 4, t = lane % 4;
  if constexpr (P == Profile::kPortable) {
    const int key = tid % kBlock, first = tid / kBlock * 8;  // 8 vectors a thread
    float acc[8] = {};
    for (int d = 0; d < shape.head_dim; ++d) {
      const float x = numerics::widen(Bf16{k[key * shape.pitch + d]});
#pragma unroll
      for (int v = 0; v < 8; ++v) acc[v] = numerics::fma(q_wide[d * kVectors + first + v], x, acc[v]);
    }
#pragma unroll
    for (int v = 0; v < 8; ++v) s.scores[(first + v) * kScorePitch + key] = acc[v];
  } else {
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int key = tid / 32 * 16 + n * 8;
      float acc[4] = {};
      for (int d = 0; d < shape.padded; d += 16) {
        const uint16_t* qa = q + g * shape.pitch + d + t * 2;
        const uint32_t a[4] = {pair_at(qa), pair_at(qa + 8 * shape.pitch), pair_at(qa + 8), pair_at(qa + 8 * shape.pitch + 8)};
        const uint16_t* kb = k + (key + g) * shape.pitch + d + t * 2;
        ptx::multiply_16x8x16(acc, a, pair_at(kb), pair_at(kb + 8));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) s.scores[(g + i / 2 * 8) * kScorePitch + key + t * 2 + i % 2] = acc[i];
    }
  }
}

__device__ __forceinline__ bool sees(const Shared& s, int vector, int key) {
  return key >= s.first[vector] && key < s.end[vector];
}

// `block`: its first key. With kExact a key takes part in what sees it and in nothing else, whatever its values are; without,
// masked keys take part with a weight of +0, which changes nothing where values are finite.
template <Profile P, bool kExact>
__device__ __forceinline__ void values_of_block(int tid, Accumulators<P>& acc, const Shared& s, const Shape& shape,
                                                const uint16_t* v, int block) {
  const int lane = tid % 32, g = lane / 4, t = lane % 4;
  if constexpr (P == Profile::kPortable) {
    for (int key = 0; key < kBlock; ++key) {
      float w[kVectors];
#pragma unroll
      for (int i = 0; i < kVectors; ++i) w[i] = s.weights[key * kVectors + i];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (tid + k * kThreads >= shape.head_dim) continue;
        const float x = numerics::widen(Bf16{v[key * shape.pitch + tid + k * kThreads]});
#pragma unroll
        for (int i = 0; i < kVectors; ++i)
          if (!kExact || sees(s, i, block + key)) acc.o[k][i] = numerics::fma(w[i], x, acc.o[k][i]);
      }
    }
  } else {
    for (int key = 0; key < kBlock; key += 16) {
      const uint16_t* wa = s.weight_bits + g * kWeightPitch + key + t * 2;
      const uint32_t a[4] = {pair_at(wa), pair_at(wa + 8 * kWeightPitch), pair_at(wa + 8), pair_at(wa + 8 * kWeightPitch + 8)};
      ptx::multiply_16x8x16(acc.l, a, kOnes, kOnes);
#pragma unroll
      for (int k = 0; k < kMostTiles; ++k) {
        const int d = (tid / 32 + k * (kThreads / 32)) * 8;
        if (d >= shape.head_dim) continue;
        const auto two = [&](int at) {
          return v[at * shape.pitch + d + g] | static_cast<uint32_t>(v[(at + 1) * shape.pitch + d + g]) << 16;
        };
        const uint32_t low = two(key + t * 2), high = two(key + t * 2 + 8);
        if constexpr (!kExact) {
          ptx::multiply_16x8x16(acc.o[k], a, low, high);
        } else {
          // A product for each vector, of the values that it sees; of the 16 rows its own counts.
#pragma unroll 1
          for (int vector = 0; vector < kVectors; ++vector) {
            const auto seen = [&](uint32_t pair, int at) {
              return pair & ((sees(s, vector, block + at) ? 0xffffu : 0u) | (sees(s, vector, block + at + 1) ? 0xffff0000u : 0u));
            };
            float part[4] = {acc.o[k][0], acc.o[k][1], acc.o[k][2], acc.o[k][3]};
            ptx::multiply_16x8x16(part, a, seen(low, key + t * 2), seen(high, key + t * 2 + 8));
            if (g == vector) acc.o[k][0] = part[0], acc.o[k][1] = part[1];
            if (g + 8 == vector) acc.o[k][2] = part[2], acc.o[k][3] = part[3];
          }
        }
      }
    }
  }
}

// Vectors [first_vector, + 16) of an item (of its rows x heads of the group) for one KV head, to their rows of y or their states.
// `memory`: shared_bytes(head_dim) of shared memory, 16-byte aligned.
template <Profile P>
__device__ __forceinline__ void attend(const Team& team, std::byte* memory, const AttentionParameters& p, const PlanView& plan,
                                       const PlanItem& item, int kv_head, int first_vector) {
  Shared& s = *reinterpret_cast<Shared*>(memory);
  const Shape shape(p.head_dim);
  auto* q_wide = reinterpret_cast<float*>(memory + sizeof(Shared));  // [d][vector]
  auto* q = reinterpret_cast<uint16_t*>(q_wide + kVectors * p.head_dim);
  uint16_t* k = q + kVectors * shape.pitch;
  uint16_t* v = k + kBlock * shape.pitch;
  const int tid = team.tid, vector = tid / 8, sum_lane = tid % 8;  // sum_lane: portable; for tc a piece of the block's keys
  const int group = p.head_begin[kv_head + 1] - p.head_begin[kv_head];
  const int vectors = min(kVectors, item.rows * group - first_vector);
  if (vectors <= 0) return;

  team.sync();  // the item before is done with shared memory
  if (tid < kVectors) {
    const int i = first_vector + min(tid, vectors - 1);
    const int tile_row = i / group;
    const PlanRow row = load_row(plan.order() + item.first + tile_row);
    s.tile_row[tid] = tile_row;
    s.row[tid] = row.row;
    s.head[tid] = p.head[p.head_begin[kv_head] + i % group];
    s.first[tid] = first_visible(row.position, p.window);
    s.end[tid] = row.position + 1;
  }
  team.sync();
  for (int i = tid; i < kVectors * shape.pitch; i += kThreads) {
    const int at = i / shape.pitch, d = i % shape.pitch;
    const uint16_t x = d < p.head_dim ? p.q[s.row[at] * p.q_stride + s.head[at] * p.head_dim + d].bits : 0;
    q[i] = x;
    if (d < p.head_dim) q_wide[d * kVectors + at] = numerics::widen(Bf16{x});
  }
  int begin_key = s.first[0], end_key = s.end[0];
  for (int i = 1; i < kVectors; ++i) {
    begin_key = min(begin_key, s.first[i]);
    end_key = max(end_key, s.end[i]);
  }
  const int first = s.first[vector], end = s.end[vector];  // of this thread's vector in the softmax

  Accumulators<P> total;
  float total_reference = 0, total_l = 0;  // of `vector`
  for (int split = max(item.first_split, begin_key / kSplit); split < item.last_split; ++split) {
    Accumulators<P> part;
    part.each(tid, p.head_dim, [](float& o, int, int, int, int) { o = 0; });
    if constexpr (P == Profile::kTc) part.l[0] = part.l[1] = part.l[2] = part.l[3] = 0;
    float reference = -kInfinity, l = 0;
    const int split_end = min(end_key, (split + 1) * kSplit);
    for (int block = max(begin_key / kBlock * kBlock, split * kSplit); block < split_end; block += kBlock) {
      team.sync();  // the block before has been read
      bool finite = true;
      for (int i = tid; i < kBlock * (shape.padded / 8); i += kThreads) {
        const int key = i / (shape.padded / 8), d = i % (shape.padded / 8) * 8;
        uint4 a = {}, b = {};
        if (d < p.head_dim) {
          const int page = page_or_any(plan.entries() + item.pages, (block + key) / p.page_size, begin_key / p.page_size,
                                       (end_key - 1) / p.page_size);
          const int64_t at = page_offset(page, p.kv_heads, kv_head, p.page_size, p.head_dim) +
                             kv_offset(p.head_dim, (block + key) % p.page_size, d);
          a = *reinterpret_cast<const uint4*>(p.keys + at);
          b = *reinterpret_cast<const uint4*>(p.values + at);
        }
        *reinterpret_cast<uint4*>(k + key * shape.pitch + d) = a;
        *reinterpret_cast<uint4*>(v + key * shape.pitch + d) = b;
        finite = finite && all_finite(b);
      }
      const bool exact = team.any(!finite);
      scores_of_block<P>(tid, s, shape, q_wide, q, k);
      team.sync();

      float x[kBlock / 8], largest = -kInfinity;
#pragma unroll
      for (int i = 0; i < kBlock / 8; ++i) {
        const int key = block + i * 8 + sum_lane;
        x[i] = s.scores[vector * kScorePitch + i * 8 + sum_lane];
        if (key >= first && key < end) largest = fmaxf(largest, x[i]);
      }
      for (int step = 1; step < 8; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
      float scale = 1.0f;
      const bool sees_block = first < block + kBlock && end > block;
      if (sees_block && attention_order::moves(largest, p.step, reference)) {
        const float moved = attention_order::moved_reference(largest, p.c, reference);
        scale = attention_order::rescale(reference, moved);
        l = numerics::mul(l, scale);
        reference = moved;
      }
      const float offset = numerics::attention_offset(reference);
      if (sum_lane == 0) s.scale[vector] = scale;
#pragma unroll
      for (int i = 0; i < kBlock / 8; ++i) {
        const int key = block + i * 8 + sum_lane;
        Bf16 rounded{0};
        if (key >= first && key < end) {
          rounded = numerics::bf(numerics::attention_weight(numerics::fma(x[i], p.step, offset)));
          if constexpr (P == Profile::kPortable) l = numerics::add(l, numerics::widen(rounded));
        }
        if constexpr (P == Profile::kPortable)
          s.weights[(i * 8 + sum_lane) * kVectors + vector] = numerics::widen(rounded);
        else
          s.weight_bits[vector * kWeightPitch + i * 8 + sum_lane] = rounded.bits;
      }
      team.sync();
      part.each(tid, p.head_dim, [&](float& o, int, int, int v_, int) { o = numerics::mul(o, s.scale[v_]); });
      if constexpr (P == Profile::kTc)
        for (int i = 0; i < 4; ++i) part.l[i] = numerics::mul(part.l[i], s.scale[tid % 32 / 4 + i / 2 * 8]);
      if (exact)
        values_of_block<P, true>(tid, part, s, shape, v, block);
      else
        values_of_block<P, false>(tid, part, s, shape, v, block);
    }

    if constexpr (P == Profile::kPortable) {
      // The tree over the eight lanes: addition commutes, so each lane of the butterfly holds it.
      for (int step = 1; step < 8; step *= 2) l = numerics::add(l, __shfl_xor_sync(~0u, l, step));
    } else {
      if (tid < 32 && tid % 4 == 0) s.l[tid / 4] = part.l[0], s.l[tid / 4 + 8] = part.l[2];
      team.sync();
      l = s.l[vector];
    }
    const bool seen = first < (split + 1) * kSplit && end > split * kSplit;
    float scale = 1.0f, part_scale = 0.0f;  // not seen: the total stays, o of the part is +0
    const bool takes = seen && (item.states >= 0 || split == first / kSplit);
    if (takes) {
      total_reference = reference;
      total_l = l;
    } else if (seen) {
      const float r = fmaxf(total_reference, reference);
      scale = attention_order::rescale(total_reference, r);
      part_scale = attention_order::rescale(reference, r);
      total_l = numerics::fma(l, part_scale, numerics::mul(total_l, scale));
      total_reference = r;
    }
    team.sync();
    if (sum_lane == 0) {
      s.scale[vector] = takes ? -1.0f : seen ? scale : -2.0f;
      s.part_scale[vector] = part_scale;
      s.reference[vector] = total_reference;
      s.l[vector] = total_l;
    }
    team.sync();
    part.each(tid, p.head_dim, [&](float& o, int k_, int i, int v_, int) {
      float& sum = total.o[k_][i];
      const float a = s.scale[v_];
      if (a == -1.0f)
        sum = o;
      else if (a != -2.0f)
        sum = numerics::fma(o, s.part_scale[v_], numerics::mul(sum, a));
    });
    if (item.states >= 0) {
      total.each(tid, p.head_dim, [&](float& o, int, int, int v_, int d) {
        if (v_ < vectors && s.scale[v_] == -1.0f) state_of(p, item.states, item.rows, split, s.tile_row[v_], s.head[v_])[d] = o;
      });
      if (sum_lane == 0 && vector < vectors && seen) {
        float* state = state_of(p, item.states, item.rows, split, s.tile_row[vector], s.head[vector]) + p.head_dim;
        state[0] = total_reference;
        state[1] = total_l;
      }
    }
  }
  if (item.states >= 0) return;
  total.each(tid, p.head_dim, [&](float& o, int, int, int v_, int d) {
    if (v_ < vectors) p.y[s.row[v_] * p.y_stride + s.head[v_] * p.head_dim + d] = output_of(o, reciprocal_of(s.l[v_]));
  });
}

}  // namespace invar::cuda::any_shape
