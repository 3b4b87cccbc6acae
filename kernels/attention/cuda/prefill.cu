// Several rows of a sequence against its keys, profile tc, head_dim 64 or 128: the matrix-bound case.
//
// A block takes 128 query vectors (rows x heads that read one KV head). One warp streams keys and values of 64 keys at a time
// through two rings; two warpgroups of 64 vectors each multiply. While a warpgroup turns scores into weights its tensor cores do
// the values of the block before, and the other warpgroup's products. Weights go from registers into the value product. At the
// end of a split the accumulators go to the vectors' totals in shared memory (a thread's own places), merged in ascending order.
//
// Masked keys go through the value product with a weight of +0, which a value that is NaN or infinite turns into NaN. The result
// shows it: NaN although the denominator is a number. Such pieces (and those that are rightly NaN) a warpgroup does once more at
// the end, the exact and slow way of any_shape.cuh; where values are finite this costs a look at what is written anyway.
#include <cstddef>

#include "kernels/attention/cuda/any_shape.cuh"
#include "kernels/attention/cuda/kernels.h"
#include "kernels/attention/cuda/prefill_weights.cuh"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/device/cuda/ptx.cuh"

namespace invar::cuda {
namespace {

using namespace prefill;  // NOLINT: weights of a block

constexpr int kVectors = 64;  // of a warpgroup
constexpr int kGroups = 2;
constexpr int kGroupThreads = 128;
constexpr int kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kArrivals = kGroups * kGroupThreads / 32;
constexpr int kSubBlock = 16;
// Named barriers: turns at the tensor cores of warpgroup 0 and 1, all consumers, doing over of warpgroup 0 and 1.
constexpr int kTurns = 1, kConsumers = 3, kAgain = 4;

template <int HeadDim>
struct alignas(1024) Shared {
  static constexpr int kStageBytes = kBlock * HeadDim * 2;
  static constexpr int kStages = 64 * 1024 / kStageBytes;
  std::byte keys[kStages][kStageBytes], values[kStages][kStageBytes];
  uint4 ones[2 * 8];  // bf16: what the denominator's product multiplies weights with
  float4 total[kGroups][HeadDim / 8][kGroupThreads];
  unsigned again[kGroups];  // bit min(r, 31): what the warpgroup made of the block's item r has to be done over
  uint64_t key_full[kStages], key_empty[kStages], value_full[kStages], value_empty[kStages];
};

// The same in all threads of the warp: the compiler then keeps it, and branches on it, out of the threads' registers.
__device__ __forceinline__ int uniform(int x) { return __shfl_sync(~0u, x, 0); }

struct Place {  // in a ring
  int stage = 0;
  uint32_t parity = 0;
  template <int Stages>
  __device__ __forceinline__ void next() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
};

// What a block does with an item.
struct Work {
  PlanItem item;
  int kv_head, group, heads;  // heads: where the group's list begins
  int first_vector, vectors;  // of the tile's rows x heads
  int first_position, last_position;
  int first_key, end_key;  // that any vector sees, within the item's splits

  __device__ const PlanRow* row_of(const PlanRow* order, int vector) const {
    return order + item.first + (first_vector + vector) / group;
  }
  __device__ bool empty() const { return vectors <= 0 || first_key >= end_key; }
  __device__ int first_block() const { return first_key / kBlock; }
  __device__ int end_block() const { return (end_key - 1) / kBlock + 1; }
};

__device__ Work work_of(const AttentionParameters& p, const PlanRow* order, const PlanItem& item, int index) {
  Work w;
  const int rest = index % (p.kv_heads * p.subtiles);
  w.item = item;
  w.kv_head = rest / p.subtiles;
  w.heads = p.head_begin[w.kv_head];
  w.group = p.head_begin[w.kv_head + 1] - w.heads;
  w.first_vector = rest % p.subtiles * (kGroups * kVectors);
  w.vectors = min(kGroups * kVectors, item.rows * w.group - w.first_vector);
  if (w.vectors <= 0) return w;
  const bool to_end = w.first_vector + w.vectors == item.rows * w.group;
  w.first_position = w.first_vector == 0 ? item.first_position : load_row(w.row_of(order, 0)).position;
  w.last_position = to_end ? item.end_key - 1 : load_row(w.row_of(order, w.vectors - 1)).position;
  w.first_key = max(first_visible(w.first_position, p.window), item.first_split * kSplit);
  w.end_key = min(w.last_position + 1, item.last_split * kSplit);
  return w;
}

// The items of a block, each loaded while the one before is worked on. They lie in descending order of work: every second round
// is dealt backwards, so that nobody always gets the larger one.
struct Deal {
  int count, per_item, round = 0, index;
  const PlanItem* items;
  const PlanRow* order;
  PlanItem item, ahead;

  __device__ Deal(const AttentionParameters& p, const PlanView& plan)
      : count(uniform(plan.header().prefill_items * p.kv_heads * p.subtiles)),
        per_item(p.kv_heads * p.subtiles),
        index(blockIdx.x),
        items(plan.prefill()),
        order(plan.order()) {
    if (more()) item = load_item(items + index / per_item);
    load_ahead();
  }
  __device__ int dealt(int r) const {
    const int grid = gridDim.x, block = blockIdx.x;
    return r % 2 == 0 ? r * grid + block : (r + 1) * grid - 1 - block;
  }
  __device__ bool more() const { return index < count; }
  __device__ void next() {
    index = dealt(++round);
    item = ahead;
    load_ahead();
  }
  __device__ void load_ahead() {
    if (dealt(round + 1) < count) ahead = load_item(items + dealt(round + 1) / per_item);
  }
};

template <int HeadDim>
__device__ void produce(Shared<HeadDim>& s, const AttentionParameters& p, const PlanView& plan) {
  using S = Shared<HeadDim>;
  constexpr int kCopies = kBlock / kSubBlock, kCopyBytes = kSubBlock * HeadDim * 2;
  const int lane = threadIdx.x % 32;
  Place key{0, 1}, value{0, 1};
  Deal deal(p, plan);
  for (; deal.more(); deal.next()) {
    const Work w = work_of(p, deal.order, deal.item, deal.index);
    if (w.empty()) continue;
    int64_t at = 0;  // lane i: where sub-block i of the eight blocks around `block` lies
    const auto copy = [&](int64_t from, const Bf16* base, std::byte* stage, uint64_t* full_barrier, uint64_t* empty_barrier,
                          uint32_t parity) {
      ptx::barrier_wait(ptx::shared_address(empty_barrier), parity);
      const uint32_t full = ptx::shared_address(full_barrier);
      if (lane == 0) ptx::barrier_expect(full, S::kStageBytes);
      __syncwarp();
      if (lane < kCopies) ptx::copy_bulk(ptx::shared_address(stage) + lane * kCopyBytes, base + from, kCopyBytes, full);
    };
    int64_t before = 0;  // the block before: its values go after this one's keys
    for (int block = w.first_block(); block <= w.end_block(); ++block) {
      int64_t from = 0;
      if (block < w.end_block()) {
        if (block == w.first_block() || block % kBlocksPerSplit == 0) {
          const int k = block / kBlocksPerSplit * kSplit + lane * kSubBlock;
          const int page = page_or_any(plan.entries() + w.item.pages, k / p.page_size, w.first_key / p.page_size,
                                       (w.end_key - 1) / p.page_size);
          at = page_offset(page, p.kv_heads, w.kv_head, p.page_size, HeadDim) + k % p.page_size * HeadDim;
        }
        from = __shfl_sync(~0u, at, block % kBlocksPerSplit * kCopies + lane % kCopies);
        copy(from, p.keys, s.keys[key.stage], &s.key_full[key.stage], &s.key_empty[key.stage], key.parity);
        key.template next<S::kStages>();
      }
      if (block > w.first_block()) {
        copy(before, p.values, s.values[value.stage], &s.value_full[value.stage], &s.value_empty[value.stage], value.parity);
        value.template next<S::kStages>();
      }
      before = from;
    }
  }
}

// The larger of each half, NaN (0x7fff) if either is.
__device__ __forceinline__ uint32_t largest_or_nan_pair(uint32_t a, uint32_t b) {
  uint32_t y;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
}
__device__ __forceinline__ bool has_nan(uint32_t pair) {
  return (pair & 0x7fffu) > 0x7f80u || (pair & 0x7fff0000u) > 0x7f800000u;
}

__device__ __forceinline__ uint64_t with_low(uint64_t descriptor, uint32_t low) {
  uint64_t y;
  asm("mov.b64 %0, {%1, %2};" : "=l"(y) : "r"(low), "r"(static_cast<uint32_t>(descriptor >> 32)));
  return y;
}

template <int HeadDim>
__device__ void consume(Shared<HeadDim>& s, const AttentionParameters& p, const PlanView& plan) {
  using S = Shared<HeadDim>;
  constexpr int kPanels = HeadDim / kPanel, kGroupBytes = 1024 * kPanels;  // bytes of 8 slots
  constexpr int kOutputs = HeadDim / 2;
  const int warpgroup = uniform(threadIdx.x / kGroupThreads) - 1, tid = threadIdx.x % kGroupThreads;
  const int warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
  float4* const total = &s.total[warpgroup][0][tid];
  Place key, value;  // next to be waited for
  // Kept as a number: from `s` the compiler would compute each address anew, by way of a slow special register.
  uint32_t base = ptx::shared_address(&s);
  asm volatile("" : "+r"(base));
  const auto barrier = [&](size_t offset, int stage) { return base + static_cast<uint32_t>(offset) + stage * 8; };
  float o[kOutputs], scores[kScores];
  float l[4];  // denominators: of the first row twice, of the second twice
  uint32_t weights[kBlock / 16][4], q[HeadDim / 16][4];

  // Only the low word of a descriptor changes from one product to the next; it counts addresses in units of 16 bytes.
  const uint64_t k_matrix = ptx::matrix_descriptor(base + static_cast<uint32_t>(offsetof(S, keys)), kGroupBytes);
  const uint64_t v_matrix = ptx::matrix_descriptor(base + static_cast<uint32_t>(offsetof(S, values)), kGroupBytes, 1024);
  // Lines along k, no swizzle: two matrices of 8 x 8 side by side. Where all is one their order does not matter.
  const uint64_t ones = (base + static_cast<uint32_t>(offsetof(S, ones))) >> 4 | 8ull << 16 | 8ull << 32;
  const auto multiply_scores = [&](int stage) {
    const uint32_t low = static_cast<uint32_t>(k_matrix) + stage * (S::kStageBytes / 16);
    ptx::forget(scores);
    ptx::warpgroup_fence();
#pragma unroll
    for (int k = 0; k < HeadDim / 16; ++k)
      ptx::Wgmma<kBlock>::template multiply<false>(scores, q[k], with_low(k_matrix, low + (k / 4 * 1024 + k % 4 * 32) / 16),
                                                   k > 0);
    ptx::warpgroup_commit();
  };
  const auto multiply_values = [&](int stage, bool first) {
    const uint32_t low = static_cast<uint32_t>(v_matrix) + stage * (S::kStageBytes / 16);
    // The denominator's products between the others or behind them: measured, README.md.
    constexpr bool kBetween = HeadDim == 128;
    const auto sum = [&](int k) { ptx::Wgmma<8>::template multiply<false>(l, weights[k], ones, k > 0 || !first); };
    ptx::warpgroup_fence();
#pragma unroll
    for (int k = 0; k < kBlock / 16; ++k) {
      ptx::Wgmma<HeadDim>::template multiply<true>(o, weights[k], with_low(v_matrix, low + k * 2 * kGroupBytes / 16),
                                                   k > 0 || !first);
      if (kBetween) sum(k);
    }
#pragma unroll
    for (int k = 0; !kBetween && k < kBlock / 16; ++k) sum(k);
    ptx::warpgroup_commit();
  };
  // The warpgroups take turns at the tensor cores, a turn a block of the tile: one makes weights while the other's products run.
  // A turn that a warpgroup does not need it passes on.
  const auto take_turn = [&] { ptx::named_barrier_sync(kTurns + warpgroup, kGroups * kGroupThreads); };
  const auto pass_turn = [&] { ptx::named_barrier_arrive(kTurns + 1 - warpgroup, kGroups * kGroupThreads); };
  if (warpgroup == 1) pass_turn();
  const auto pack_weights = [&] {
#pragma unroll
    for (int i = 0; i < kBlock / 4; ++i) {
      weights[i / 4][i % 4] = pack(scores[i * 2], scores[i * 2 + 1]);
    }
    // Their computation may not sink behind the next fence.
#pragma unroll
    for (int i = 0; i < kBlock / 4; ++i) asm volatile("" : "+r"(weights[i / 4][i % 4])::"memory");
    ptx::pin(o);
    ptx::pin(l);
  };
  const auto release = [&](uint32_t empty) {
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(empty);
  };
  const auto skip = [&](int blocks) {  // blocks that this warpgroup sees nothing of
#pragma unroll 1
    for (int i = 0; i < blocks; ++i) {
      take_turn();
      pass_turn();
      ptx::barrier_wait(barrier(offsetof(S, key_full), key.stage), key.parity);
      release(barrier(offsetof(S, key_empty), key.stage));
      key.template next<S::kStages>();
      ptx::barrier_wait(barrier(offsetof(S, value_full), value.stage), value.parity);
      release(barrier(offsetof(S, value_empty), value.stage));
      value.template next<S::kStages>();
    }
  };

  Deal deal(p, plan);
  for (; deal.more(); deal.next()) {
    const Work w = work_of(p, deal.order, deal.item, deal.index);
    if (w.empty()) continue;
    const int vectors = min(kVectors, w.vectors - warpgroup * kVectors);
    int begin = w.end_block(), end = w.end_block();  // blocks of this warpgroup
    int whole_begin = 0, whole_end = 0;              // keys that all its vectors see
    Rows rows;
    int row[2], head[2], tile_row[2];
    bool real[2];
    if (vectors > 0) {
      const int lowest = warpgroup == 0 ? w.first_position : load_row(w.row_of(deal.order, kVectors)).position;
      const int highest =
          warpgroup == 1 || w.vectors <= kVectors ? w.last_position : load_row(w.row_of(deal.order, kVectors - 1)).position;
      const int first_key = max(w.first_key, first_visible(lowest, p.window)), end_key = min(w.end_key, highest + 1);
      whole_begin = first_visible(highest, p.window);
      whole_end = lowest + 1;
      if (first_key < end_key) begin = first_key / kBlock, end = (end_key - 1) / kBlock + 1;
      begin = uniform(begin), end = uniform(end), whole_begin = uniform(whole_begin), whole_end = uniform(whole_end);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int v = warp * 16 + g + r * 8;
        real[r] = v < vectors;
        const int at = w.first_vector + warpgroup * kVectors + min(v, vectors - 1);
        tile_row[r] = at / w.group;
        head[r] = p.head[w.heads + at % w.group];
        const PlanRow of_plan = load_row(deal.order + w.item.first + tile_row[r]);
        row[r] = of_plan.row;
        rows.first[r] = first_visible(of_plan.position, p.window);
        rows.end[r] = of_plan.position + 1;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const Bf16* from = p.q + row[r] * p.q_stride + head[r] * HeadDim + t * 2;
#pragma unroll
        for (int k = 0; k < HeadDim / 16; ++k) {
          q[k][r] = *reinterpret_cast<const uint32_t*>(from + k * 16);
          q[k][r + 2] = *reinterpret_cast<const uint32_t*>(from + k * 16 + 8);
        }
      }
    }
    if (begin >= end) {
      skip(w.end_block() - w.first_block());
      continue;
    }
    skip(begin - w.first_block());

    float total_reference[2], total_l[2];
    const auto do_over = [&] { atomicOr(&s.again[warpgroup], 1u << min(deal.round, 31)); };
    const auto end_split = [&](int split, const float(&references)[2], bool last) {
      float a[2], b[2];
      bool sees[2], takes[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sees[r] = rows.first[r] < (split + 1) * kSplit && rows.end[r] > split * kSplit;
        takes[r] = split == rows.first[r] / kSplit;
      }
      if (w.item.states >= 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          if (!sees[r] || !real[r]) continue;
          float* state = state_of(p, w.item.states, w.item.rows, split, tile_row[r], head[r]);
          float largest = 0;
#pragma unroll
          for (int n = 0; n < kOutputs / 4; ++n) {
            *reinterpret_cast<float2*>(state + n * 8 + t * 2) = make_float2(o[n * 4 + r * 2], o[n * 4 + r * 2 + 1]);
            largest = largest_or_nan(largest, largest_or_nan(o[n * 4 + r * 2], o[n * 4 + r * 2 + 1]));
          }
          if (largest != largest && l[r * 2] < kInfinity) do_over();
          if (t == 0) *reinterpret_cast<float2*>(state + HeadDim) = make_float2(references[r], l[r * 2]);
        }
        return;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        a[r] = 1.0f, b[r] = 1.0f;
        if (takes[r]) {
          total_reference[r] = references[r];
          total_l[r] = l[r * 2];
        } else if (sees[r]) {
          const float reference = fmaxf(total_reference[r], references[r]);
          a[r] = attention_order::rescale(total_reference[r], reference);
          b[r] = attention_order::rescale(references[r], reference);
          total_reference[r] = reference;
          total_l[r] = numerics::fma(l[r * 2], b[r], numerics::mul(total_l[r], a[r]));
        }
      }
      if (__all_sync(~0u, sees[0] && sees[1] && !takes[0] && !takes[1])) {
#pragma unroll
        for (int n = 0; n < kOutputs / 4; ++n) {
          const float4 x = total[n * kGroupThreads];
          const float before[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) o[n * 4 + i] = numerics::fma(o[n * 4 + i], b[i / 2], numerics::mul(before[i], a[i / 2]));
        }
      } else if (!__all_sync(~0u, takes[0] && takes[1])) {
#pragma unroll
        for (int n = 0; n < kOutputs / 4; ++n) {
          const float4 x = total[n * kGroupThreads];
          const float before[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float merged = numerics::fma(o[n * 4 + i], b[i / 2], numerics::mul(before[i], a[i / 2]));
            o[n * 4 + i] = takes[i / 2] ? o[n * 4 + i] : sees[i / 2] ? merged : before[i];
          }
        }
      }
      if (!last) {
#pragma unroll
        for (int n = 0; n < kOutputs / 4; ++n)
          total[n * kGroupThreads] = make_float4(o[n * 4], o[n * 4 + 1], o[n * 4 + 2], o[n * 4 + 3]);
        return;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (!real[r]) continue;
        const float reciprocal = reciprocal_of(total_l[r]);
        Bf16* y = p.y + row[r] * p.y_stride + head[r] * HeadDim;
        uint32_t largest = 0;
#pragma unroll
        for (int n = 0; n < kOutputs / 4; ++n) {
          const uint32_t two =
              pack(numerics::fma(o[n * 4 + r * 2], reciprocal, 0.0f), numerics::fma(o[n * 4 + r * 2 + 1], reciprocal, 0.0f));
          *reinterpret_cast<uint32_t*>(y + n * 8 + t * 2) = two;
          largest = largest_or_nan_pair(largest, two);
        }
        if (has_nan(largest) && total_l[r] < kInfinity) do_over();
      }
    };

    const auto weigh = [&](int block) {
      if (block == begin || block % kBlocksPerSplit == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          rows.reference[r] = -kInfinity;
          rows.offset[r] = numerics::attention_offset(-kInfinity);
        }
      }
      weights_of_block(scores, rows, block * kBlock, block * kBlock < whole_begin || (block + 1) * kBlock > whole_end, p.c,
                       p.step, p.fraction);
    };
    ptx::barrier_wait(barrier(offsetof(S, key_full), key.stage), key.parity);
    multiply_scores(key.stage);
    ptx::warpgroup_wait<0>();
    ptx::pin(scores);
    release(barrier(offsetof(S, key_empty), key.stage));
    key.template next<S::kStages>();
    weigh(begin);
    pack_weights();
    // Weights of `block` are there: the scores of the next block, then its values; the next weights are made while the values
    // are multiplied.
#pragma unroll 1
    for (int block = begin; block < end - 1; ++block) {
      const bool first = block == begin || block % kBlocksPerSplit == 0, last = (block + 1) % kBlocksPerSplit == 0;
      ptx::barrier_wait(barrier(offsetof(S, key_full), key.stage), key.parity);
      take_turn();
      multiply_scores(key.stage);
      ptx::barrier_wait(barrier(offsetof(S, value_full), value.stage), value.parity);
      multiply_values(value.stage, first);
      const float references[2] = {rows.reference[0], rows.reference[1]};
      ptx::warpgroup_wait<1>();
      ptx::pin(scores);
      pass_turn();
      release(barrier(offsetof(S, key_empty), key.stage));
      key.template next<S::kStages>();
      weigh(block + 1);
      ptx::warpgroup_wait<0>();
      ptx::pin(o);
      ptx::pin(l);
      release(barrier(offsetof(S, value_empty), value.stage));
      value.template next<S::kStages>();
      if (last) {
        end_split(block / kBlocksPerSplit, references, false);
      } else if (rows.moved) {
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) o[i] = numerics::mul(o[i], rows.scale[i / 2 % 2]);
#pragma unroll
        for (int i = 0; i < 4; ++i) l[i] = numerics::mul(l[i], rows.scale[i / 2]);
      }
      pack_weights();
    }
    ptx::barrier_wait(barrier(offsetof(S, value_full), value.stage), value.parity);
    take_turn();
    multiply_values(value.stage, end - 1 == begin || (end - 1) % kBlocksPerSplit == 0);
    pass_turn();
    ptx::warpgroup_wait<0>();
    ptx::pin(o);
    ptx::pin(l);
    release(barrier(offsetof(S, value_empty), value.stage));
    value.template next<S::kStages>();
    end_split((end - 1) / kBlocksPerSplit, rows.reference, true);
    skip(w.end_block() - end);
  }
  if (warpgroup == 0) take_turn();  // the one that is left over

  ptx::named_barrier_sync(kConsumers, kGroups * kGroupThreads);  // nobody needs the rings any more
  const unsigned again = s.again[warpgroup];
  if (again == 0) return;
  static_assert(any_shape::kThreads == kGroupThreads && sizeof(s.keys) == sizeof(s.values) && kGroups == 2);
  static_assert(any_shape::shared_bytes(HeadDim) <= sizeof(s.keys));
  std::byte* const memory = warpgroup == 0 ? s.keys[0] : s.values[0];
  for (Deal over(p, plan); over.more(); over.next()) {
    if ((again >> min(over.round, 31) & 1) == 0) continue;
    const Work w = work_of(p, over.order, over.item, over.index);
    if (w.empty()) continue;
    for (int i = 0; i < kVectors; i += any_shape::kVectors)
      any_shape::attend<Profile::kTc>({tid, kAgain + warpgroup}, memory, p, plan, w.item, w.kv_head,
                                      w.first_vector + warpgroup * kVectors + i);
  }
}

template <int HeadDim>
__global__ void __launch_bounds__(kThreads, 1) prefill_kernel(const __grid_constant__ AttentionParameters p) {
  extern __shared__ __align__(1024) std::byte memory[];
  using S = Shared<HeadDim>;
  auto& s = *reinterpret_cast<S*>(memory);
  if (threadIdx.x == 0) {
    for (unsigned& bits : s.again) bits = 0;
    for (int i = 0; i < S::kStages; ++i) {
      ptx::barrier_init(ptx::shared_address(&s.key_full[i]), 1);
      ptx::barrier_init(ptx::shared_address(&s.value_full[i]), 1);
      ptx::barrier_init(ptx::shared_address(&s.key_empty[i]), kArrivals);
      ptx::barrier_init(ptx::shared_address(&s.value_empty[i]), kArrivals);
    }
    ptx::fence_barrier_init();
  }
  if (threadIdx.x < sizeof(s.ones) / sizeof(uint4)) {
    s.ones[threadIdx.x] = {kOnes, kOnes, kOnes, kOnes};
    ptx::fence_async_shared();
  }
  __syncthreads();
  ptx::wait_for_earlier_kernels();
  ptx::let_next_kernel_start();  // the merge: it waits itself
  const PlanView plan{p.block};
  if (threadIdx.x < kGroupThreads) {
    ptx::fewer_registers<24>();
    if (threadIdx.x < 32) produce<HeadDim>(s, p, plan);
  } else {
    ptx::more_registers<240>();
    consume<HeadDim>(s, p, plan);
  }
}

template <int HeadDim>
void launch_shape(const Device& device, const AttentionParameters& p) {
  static_assert(sizeof(Shared<HeadDim>) <= 227 * 1024);
  launch(device,
         {.grid = static_cast<unsigned>(device.cuda().multiprocessors),
          .block = kThreads,
          .shared = sizeof(Shared<HeadDim>),
          .dependent = true},
         prefill_kernel<HeadDim>, p);
}

}  // namespace

bool takes_prefill(const Device& device, const AttentionParameters& p) {
  return device.profile() == Profile::kTc && (p.head_dim == 64 || p.head_dim == 128);
}

void launch_prefill(const Device& device, AttentionParameters p, int64_t tile_rows, int64_t group) {
  p.subtiles = static_cast<int32_t>((tile_rows * group + kGroups * kVectors - 1) / (kGroups * kVectors));
  if (p.head_dim == 128)
    launch_shape<128>(device, p);
  else
    launch_shape<64>(device, p);
}

}  // namespace invar::cuda
