// Attention of any shape in either profile: 16 query vectors of a KV head against blocks of 64 keys. Plain and slow; the other
// kernels are compared with it where the scalar reference would take too long.
#include "kernels/attention/cuda/kernels.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda {
namespace {

constexpr int kVectors = 16;
constexpr int kThreads = 128;
constexpr int kScorePitch = kBlock + 8;  // floats
constexpr int kWeightPitch = kBlock + 8;
constexpr int kMostTiles = kMostHeadDim / 8 / (kThreads / 32);

struct Shape {
  int head_dim, padded, pitch;  // padded to k16 groups; elements from one row of q, keys or values to the next
  __host__ __device__ explicit Shape(int d) : head_dim(d), padded((d + 15) / 16 * 16), pitch(padded + 8) {}
};

struct Shared {
  float scores[kVectors * kScorePitch];
  float weights[kBlock * kVectors];               // portable: [key][vector]
  uint16_t weight_bits[kVectors * kWeightPitch];  // tc: [vector][key]
  float scale[kVectors];                          // of o before a block; of the total at a merge
  float part_scale[kVectors];
  float reference[kVectors], l[kVectors];  // of the split at its end
  int first[kVectors], end[kVectors];      // keys the vector sees
  int row[kVectors], tile_row[kVectors], head[kVectors];
};

size_t shared_bytes(int head_dim) {
  const Shape s(head_dim);
  return sizeof(Shared) + static_cast<size_t>(kVectors + 2 * kBlock) * s.pitch * sizeof(Bf16) +
         static_cast<size_t>(kVectors) * head_dim * sizeof(float);
}

// The value accumulators of a thread; each() calls f(o, k, i, vector, d) for o[k][i]. portable: d = thread, thread + 128 for each
// vector. tc: mma tiles warp, warp + 4, ... of 8 d.
template <Profile P>
struct Accumulators;
template <>
struct Accumulators<Profile::kPortable> {
  float o[2][kVectors];
  template <class F>
  __device__ void each(int head_dim, const F& f) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int d = threadIdx.x + k * kThreads;
      if (d >= head_dim) continue;
#pragma unroll
      for (int v = 0; v < kVectors; ++v) f(o[k][v], k, v, v, d);
    }
  }
};
template <>
struct Accumulators<Profile::kTc> {
  float o[kMostTiles][4];
  template <class F>
  __device__ void each(int head_dim, const F& f) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < kMostTiles; ++k) {
      const int d = (threadIdx.x / 32 + k * (kThreads / 32)) * 8 + lane % 4 * 2;
      if (d >= head_dim) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) f(o[k][i], k, i, lane / 4 + i / 2 * 8, d + i % 2);
    }
  }
};

__device__ uint32_t pair_at(const uint16_t* p) { return *reinterpret_cast<const uint32_t*>(p); }

template <Profile P>
__device__ void scores_of_block(Shared& s, const Shape& shape, const float* q_wide, const uint16_t* q, const uint16_t* k) {
  const int tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4;
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

template <Profile P>
__device__ void values_of_block(Accumulators<P>& acc, const Shared& s, const Shape& shape, const uint16_t* v) {
  const int tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4;
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
        for (int i = 0; i < kVectors; ++i) acc.o[k][i] = numerics::fma(w[i], x, acc.o[k][i]);
      }
    }
  } else {
    for (int key = 0; key < kBlock; key += 16) {
      const uint16_t* wa = s.weight_bits + g * kWeightPitch + key + t * 2;
      const uint32_t a[4] = {pair_at(wa), pair_at(wa + 8 * kWeightPitch), pair_at(wa + 8), pair_at(wa + 8 * kWeightPitch + 8)};
#pragma unroll
      for (int k = 0; k < kMostTiles; ++k) {
        const int d = (tid / 32 + k * (kThreads / 32)) * 8;
        if (d >= shape.head_dim) continue;
        const auto two = [&](int at) {
          return v[at * shape.pitch + d + g] | static_cast<uint32_t>(v[(at + 1) * shape.pitch + d + g]) << 16;
        };
        ptx::multiply_16x8x16(acc.o[k], a, two(key + t * 2), two(key + t * 2 + 8));
      }
    }
  }
}

template <Profile P>
__global__ void __launch_bounds__(kThreads) generic_kernel(const __grid_constant__ AttentionParameters p, PlanList list) {
  extern __shared__ __align__(16) std::byte memory[];
  Shared& s = *reinterpret_cast<Shared*>(memory);
  const Shape shape(p.head_dim);
  auto* q_wide = reinterpret_cast<float*>(memory + sizeof(Shared));  // [d][vector]
  auto* q = reinterpret_cast<uint16_t*>(q_wide + kVectors * p.head_dim);
  uint16_t* k = q + kVectors * shape.pitch;
  uint16_t* v = k + kBlock * shape.pitch;

  ptx::wait_for_earlier_kernels();
  const PlanView plan{p.block};
  const int tid = threadIdx.x, vector = tid / 8, sum_lane = tid % 8;
  const PlanItem* items = list == PlanList::kDecode ? plan.decode() : plan.prefill();
  const int per_item = p.kv_heads * p.subtiles;
  const int64_t count = int64_t{list == PlanList::kDecode ? plan.header().decode_items : plan.header().prefill_items} * per_item;
  for (int64_t index = blockIdx.x; index < count; index += gridDim.x) {
    const PlanItem item = load_item(items + index / per_item);
    const int kv_head = static_cast<int>(index % per_item) / p.subtiles;
    const int group = p.head_begin[kv_head + 1] - p.head_begin[kv_head];
    const int first_vector = static_cast<int>(index % p.subtiles) * kVectors;
    const int vectors = min(kVectors, item.rows * group - first_vector);
    if (vectors <= 0) continue;

    __syncthreads();  // the item before is done with shared memory
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
    __syncthreads();
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
      part.each(p.head_dim, [](float& o, int, int, int, int) { o = 0; });
      float reference = -kInfinity, l = 0;
      const int split_end = min(end_key, (split + 1) * kSplit);
      for (int block = max(begin_key / kBlock * kBlock, split * kSplit); block < split_end; block += kBlock) {
        __syncthreads();  // the block before has been read
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
        }
        __syncthreads();
        scores_of_block<P>(s, shape, q_wide, q, k);
        __syncthreads();

        float x[kBlock / 8], largest = -kInfinity;
#pragma unroll
        for (int i = 0; i < kBlock / 8; ++i) {
          const int key = block + i * 8 + sum_lane;
          x[i] = s.scores[vector * kScorePitch + i * 8 + sum_lane];
          if (key >= first && key < end) largest = fmaxf(largest, x[i]);
        }
        for (int step = 1; step < 8; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
        const float candidate = numerics::mul(largest, p.c);
        float scale = 1.0f;
        if (numerics::sub(candidate, reference) > attention_order::kReferenceSlack) {
          scale = attention_order::rescale(reference, candidate);
          l = numerics::mul(l, scale);
          reference = candidate;
        }
        if (sum_lane == 0) s.scale[vector] = scale;
#pragma unroll
        for (int i = 0; i < kBlock / 8; ++i) {
          const int key = block + i * 8 + sum_lane;
          float weight = 0;
          if (key >= first && key < end) {
            weight = exact_weight(numerics::fma(x[i], p.c, -reference));
            l = numerics::add(l, weight);
          }
          const Bf16 rounded = numerics::bf(weight);
          if constexpr (P == Profile::kPortable)
            s.weights[(i * 8 + sum_lane) * kVectors + vector] = numerics::widen(rounded);
          else
            s.weight_bits[vector * kWeightPitch + i * 8 + sum_lane] = rounded.bits;
        }
        __syncthreads();
        part.each(p.head_dim, [&](float& o, int, int, int v_, int) { o = numerics::mul(o, s.scale[v_]); });
        values_of_block<P>(part, s, shape, v);
      }

      // The tree over the eight lanes: addition commutes, so each lane of the butterfly holds it.
      for (int step = 1; step < 8; step *= 2) l = numerics::add(l, __shfl_xor_sync(~0u, l, step));
      const bool sees = first < (split + 1) * kSplit && end > split * kSplit;
      float scale = 1.0f, part_scale = 0.0f;  // not seen: the total stays, o of the part is +0
      const bool takes = sees && (item.states >= 0 || split == first / kSplit);
      if (takes) {
        total_reference = reference;
        total_l = l;
      } else if (sees) {
        const float r = fmaxf(total_reference, reference);
        scale = attention_order::rescale(total_reference, r);
        part_scale = attention_order::rescale(reference, r);
        total_l = numerics::fma(l, part_scale, numerics::mul(total_l, scale));
        total_reference = r;
      }
      __syncthreads();
      if (sum_lane == 0) {
        s.scale[vector] = takes ? -1.0f : sees ? scale : -2.0f;
        s.part_scale[vector] = part_scale;
        s.reference[vector] = total_reference;
        s.l[vector] = total_l;
      }
      __syncthreads();
      part.each(p.head_dim, [&](float& o, int k_, int i, int v_, int) {
        float& sum = total.o[k_][i];
        const float a = s.scale[v_];
        if (a == -1.0f)
          sum = o;
        else if (a != -2.0f)
          sum = numerics::fma(o, s.part_scale[v_], numerics::mul(sum, a));
      });
      if (item.states >= 0) {
        total.each(p.head_dim, [&](float& o, int, int, int v_, int d) {
          if (v_ < vectors && s.scale[v_] == -1.0f) state_of(p, item.states, item.rows, split, s.tile_row[v_], s.head[v_])[d] = o;
        });
        if (sum_lane == 0 && vector < vectors && sees) {
          float* state = state_of(p, item.states, item.rows, split, s.tile_row[vector], s.head[vector]) + p.head_dim;
          state[0] = total_reference;
          state[1] = total_l;
        }
      }
    }
    if (item.states >= 0) continue;
    total.each(p.head_dim, [&](float& o, int, int, int v_, int d) {
      if (v_ < vectors) p.y[s.row[v_] * p.y_stride + s.head[v_] * p.head_dim + d] = output_of(o, reciprocal_of(s.l[v_]));
    });
  }
}

}  // namespace

void launch_generic(const Device& device, AttentionParameters p, PlanList list, int64_t tile_rows, int64_t group) {
  p.subtiles = static_cast<int32_t>((tile_rows * group + kVectors - 1) / kVectors);
  const Launch shape{.grid = static_cast<unsigned>(device.cuda().multiprocessors * 4),
                     .block = kThreads,
                     .shared = shared_bytes(p.head_dim),
                     .dependent = true};
  if (device.profile() == Profile::kPortable)
    launch(device, shape, generic_kernel<Profile::kPortable>, p, list);
  else
    launch(device, shape, generic_kernel<Profile::kTc>, p, list);
}

}  // namespace invar::cuda
