#include "kernels/attention/cuda/layout.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/heads/cuda/heads.h"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/norm/cuda/norm_rows.cuh"
#include "kernels/rope/cuda/rotation.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kPairBlock = 128;                                    // of prepare_pairs: a warp a row
constexpr int kEarlyBlocks = 4, kLateBlocks = 6, kPairBlocks = 8;  // that a multiprocessor holds

struct Heads {
  Bf16* qkv;
  int64_t stride;
  const Bf16* q_weight;
  const Bf16* k_weight;
  const int32_t* positions;
  const float* table;  // [position][2][half]
  Bf16* keys;
  Bf16* values;
  const int64_t* slots;
  float epsilon;
  int rows, query_heads, kv_heads, head_dim, half;
  unsigned page_size;
};

// kThreads threads a head, 8 elements each; threads behind its end hold zeros. kEarly: angles are asked for before the norm is
// summed, which a step of few rows waits for; later, and more threads fit, which many rows need to keep memory busy.
template <int kThreads, bool kEarly>
__global__ void __launch_bounds__(kBlock, kEarly ? kEarlyBlocks : kLateBlocks) prepare(const __grid_constant__ Heads p) {
  const unsigned heads = p.query_heads + 2 * p.kv_heads, vector = (blockIdx.x * kBlock + threadIdx.x) / kThreads;
  const unsigned row = vector / heads, head = vector - row * heads;
  const int d = static_cast<int>(threadIdx.x) % kThreads * kPiece;
  const bool here = row < p.rows && d < p.head_dim;
  const bool query = head < p.query_heads, value = head >= p.query_heads + p.kv_heads;
  let_successor_start();
  const Bf16* weight_of_kind = query ? p.q_weight : p.k_weight;
  Bf16Piece<kPiece> weight, x;
  if (here && !value && weight_of_kind) weight = load_piece(weight_of_kind + d);
  Bf16* at = p.qkv + row * p.stride + int64_t{head} * p.head_dim + d;
  const bool first = d < p.half, rotated = here && !value && d < 2 * p.half;
  // Asked for while the kernels in front still run, needed behind them.
  const int position = rotated ? p.positions[row] : 0;
  const int64_t slot = here && !query ? p.slots[row] : -1;
  wait_for_predecessors();
  if (here) x = load_piece(at);
  FloatPiece<kPiece> cosine, sine;
  const auto load_angles = [&] {
    if (!rotated) return;
    const float* angle = p.table + int64_t{position} * 2 * p.half + (first ? d : d - p.half);
    cosine = load_piece(angle), sine = load_piece(angle + p.half);
  };
  if constexpr (kEarly) load_angles();
  if (p.q_weight) {
    float v[kPiece], lane[kPiece];
    widen_piece(x, v);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) lane[i] = numerics::fma(v[i], v[i], 0.0f);
    const float r = norm_factor(halve_lanes<kThreads>(lane), p.head_dim, p.epsilon);
    if (!value) x = norm_piece(x, weight, r);
  }
  if constexpr (!kEarly) load_angles();
  // The other half of the pair is in another thread of the head.
  const int other = static_cast<int>(threadIdx.x) % 32 + (first ? p.half : -p.half) / kPiece;
  Bf16Piece<kPiece> pair;
#pragma unroll
  for (int i = 0; i < kPiece / 2; ++i) pair.pair[i] = __shfl_sync(~0u, x.pair[i], other);
  if (rotated) {
    float mine[kPiece], theirs[kPiece];
    widen_piece(x, mine);
    widen_piece(pair, theirs);
#pragma unroll
    for (int i = 0; i < kPiece; ++i)
      mine[i] = first ? first_rotated(mine[i], theirs[i], cosine.v[i], sine.v[i])
                      : second_rotated(theirs[i], mine[i], cosine.v[i], sine.v[i]);
    x = narrow_piece(mine);
  }
  if (here && !value) store_piece(at, x);
  if (slot < 0) return;
  // 32 bits: a 64-bit division costs as much as the norm, and no cache has 2^32 slots.
  const unsigned page = static_cast<unsigned>(slot) / p.page_size, in_page = static_cast<unsigned>(slot) - page * p.page_size;
  const int64_t to = page_offset(page, p.kv_heads, head - p.query_heads - (value ? p.kv_heads : 0), p.page_size, p.head_dim) +
                     kv_offset(p.head_dim, static_cast<int>(in_page), d);
  store_piece((value ? p.values : p.keys) + to, x);
}

// The sum of clause 2 of two vectors of 16 * kThreads values at once, in groups of kThreads threads. lane[0] is the thread's part
// of one vector, with its first stride already taken, lane[1] of the other; the upper half of a group has them the other way
// round, so the first exchange leaves each half of the group with a vector of its own. Returns the sum of the thread's vector.
template <int kThreads>
__device__ inline float sum_two(const float (&lane)[2][kPiece]) {
  float v[kPiece];
#pragma unroll
  for (int i = 0; i < kPiece; ++i) v[i] = numerics::add(lane[0][i], __shfl_xor_sync(~0u, lane[1][i], kThreads / 2));
  // Each partner of an exchange goes on with half of the values, the even or the odd ones of those left.
  int left = kPiece;
#pragma unroll
  for (int stride = kThreads / 4; stride > 0; stride /= 2, left /= 2) {
    const bool odd = threadIdx.x & stride;
#pragma unroll
    for (int i = 0; i < left / 2; ++i) {
      const float keep = odd ? v[2 * i + 1] : v[2 * i], give = odd ? v[2 * i] : v[2 * i + 1];
      v[i] = numerics::add(keep, __shfl_xor_sync(~0u, give, stride));
    }
  }
  // Strides below the piece: the upper ones are still in the thread, the others where the partners parted.
#pragma unroll
  for (int stride = left / 2; stride > 0; stride /= 2)
#pragma unroll
    for (int i = 0; i < stride; ++i) v[i] = numerics::add(v[i], v[i + stride]);
#pragma unroll
  for (int stride = 1; stride < kThreads / 2; stride *= 2) v[0] = numerics::add(v[0], __shfl_xor_sync(~0u, v[0], stride));
  return v[0];
}

// For many rows, where instructions count: kThreads threads take two heads, each thread a piece of either half of both, so that a
// rotated pair is in one thread and angles, slots and the norm's factor serve two heads. A warp takes 64 / kThreads neighbouring
// heads of a row. The whole head is rotated: head_dim = 16 * kThreads.
template <int kThreads>
__global__ void __launch_bounds__(kPairBlock, kPairBlocks) prepare_pairs(const __grid_constant__ Heads p) {
  constexpr int kDim = 2 * kThreads * kPiece, kHalf = kDim / 2;
  constexpr unsigned kGroups = 32 / kThreads;
  const unsigned lane = threadIdx.x % 32, row = blockIdx.y * (kPairBlock / 32) + threadIdx.x / 32;
  const unsigned first = blockIdx.x * 2 * kGroups, rotated = p.query_heads + p.kv_heads, heads = rotated + p.kv_heads;
  let_successor_start();
  wait_for_predecessors();
  if (row >= p.rows) return;
  const int d = static_cast<int>(lane % kThreads) * kPiece;
  const bool upper = lane & kThreads / 2;
  Bf16* const at = p.qkv + row * p.stride + d;
  unsigned head[2];
  Bf16Piece<kPiece> x[2][2];  // [head][half]
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    head[s] = first + lane / kThreads + (upper ? 1 - s : s) * kGroups;
    if (head[s] >= heads) continue;
#pragma unroll
    for (int h = 0; h < 2; ++h) x[s][h] = load_piece(at + head[s] * kDim + h * kHalf);
  }
  const int64_t slot = first + 2 * kGroups > p.query_heads ? p.slots[row] : -1;
  if (first < rotated) {
    const float* angle = p.table + int64_t{p.positions[row]} * kDim + d;
    const FloatPiece<kPiece> cosine = load_piece(angle), sine = load_piece(angle + kHalf);
    float factor[2];
    if (p.q_weight) {
      float sum[2][kPiece];
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        float v[kPiece], w[kPiece];
        widen_piece(x[s][0], v);
        widen_piece(x[s][1], w);
#pragma unroll
        for (int i = 0; i < kPiece; ++i)
          sum[s][i] = numerics::add(numerics::fma(v[i], v[i], 0.0f), numerics::fma(w[i], w[i], 0.0f));
      }
      factor[0] = norm_factor(sum_two<kThreads>(sum), kDim, p.epsilon);
      factor[1] = __shfl_xor_sync(~0u, factor[0], kThreads / 2);
    }
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      if (head[s] >= rotated) continue;
      if (p.q_weight) {
        const Bf16* weight = (head[s] < p.query_heads ? p.q_weight : p.k_weight) + d;
#pragma unroll
        for (int h = 0; h < 2; ++h) x[s][h] = norm_piece(x[s][h], load_piece(weight + h * kHalf), factor[s]);
      }
      float x1[kPiece], x2[kPiece];
      widen_piece(x[s][0], x1);
      widen_piece(x[s][1], x2);
#pragma unroll
      for (int i = 0; i < kPiece; ++i) {
        const float y1 = first_rotated(x1[i], x2[i], cosine.v[i], sine.v[i]);
        x2[i] = second_rotated(x1[i], x2[i], cosine.v[i], sine.v[i]);
        x1[i] = y1;
      }
      x[s][0] = narrow_piece(x1), x[s][1] = narrow_piece(x2);
#pragma unroll
      for (int h = 0; h < 2; ++h) store_piece(at + head[s] * kDim + h * kHalf, x[s][h]);
    }
  }
  if (slot < 0) return;
  const unsigned page = static_cast<unsigned>(slot) / p.page_size, in_page = static_cast<unsigned>(slot) - page * p.page_size;
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    if (head[s] < p.query_heads || head[s] >= heads) continue;
    const bool value = head[s] >= rotated;
    Bf16* to = (value ? p.values : p.keys) +
               page_offset(page, p.kv_heads, head[s] - (value ? rotated : p.query_heads), p.page_size, kDim);
#pragma unroll
    for (int h = 0; h < 2; ++h) store_piece(to + kv_offset(kDim, static_cast<int>(in_page), d + h * kHalf), x[s][h]);
  }
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

int threads_of_head(int64_t head_dim) { return head_dim <= 64 ? 8 : head_dim <= 128 ? 16 : 32; }
int64_t piece_blocks(const PrepareHeads& p) {
  return (p.rows * (p.query_heads + 2 * p.kv_heads) * threads_of_head(p.head_dim) + kBlock - 1) / kBlock;
}
dim3 pair_blocks(const PrepareHeads& p) {
  const int64_t heads_of_warp = 1024 / p.head_dim, rows_of_block = kPairBlock / 32;
  return {static_cast<unsigned>((p.query_heads + 2 * p.kv_heads + heads_of_warp - 1) / heads_of_warp),
          static_cast<unsigned>((p.rows + rows_of_block - 1) / rows_of_block)};
}

}  // namespace

HeadsPlan plan_heads(int multiprocessors, const PrepareHeads& p) {
  using enum HeadsPlan::Schedule;
  const int64_t half = p.table->half();
  const bool pieces = aligned(p.qkv) && aligned(p.q_weight) && aligned(p.k_weight) && p.stride % kPiece == 0 &&
                      p.head_dim % kPiece == 0 && half % kPiece == 0 && p.head_dim <= 256 && !p.q_weight == !p.k_weight;
  if (!pieces) return {};
  const bool pairs =
      (p.head_dim == 64 || p.head_dim == 128 || p.head_dim == 256) && 2 * half == p.head_dim && p.rows <= kMostPairRows;
  const int64_t blocks = piece_blocks(p);
  if (pairs) {
    // Once pieces no longer fit at once; and where they need two blocks of a multiprocessor but pairs only one.
    const dim3 grid = pair_blocks(p);
    if (blocks > kLateBlocks * multiprocessors || (blocks > multiprocessors && int64_t{grid.x} * grid.y <= multiprocessors))
      return {.schedule = kPairs};
  }
  return {.schedule = kPieces, .early = blocks <= kEarlyBlocks * multiprocessors};
}

bool prepare_heads(const Device& device, const PrepareHeads& p) {
  return prepare_heads(device, p, plan_heads(device.cuda().multiprocessors, p));
}

bool prepare_heads(const Device& device, const PrepareHeads& p, const HeadsPlan& plan) {
  if (plan.schedule == HeadsPlan::Schedule::kSeparate) return false;
  if (p.rows == 0) return true;
  const Heads h{.qkv = p.qkv,
                .stride = p.stride,
                .q_weight = p.q_weight,
                .k_weight = p.k_weight,
                .positions = p.positions,
                .table = p.table->on_device(),
                .keys = p.pages->keys(),
                .values = p.pages->values(),
                .slots = p.slots,
                .epsilon = p.epsilon,
                .rows = static_cast<int>(p.rows),
                .query_heads = static_cast<int>(p.query_heads),
                .kv_heads = static_cast<int>(p.kv_heads),
                .head_dim = static_cast<int>(p.head_dim),
                .half = static_cast<int>(p.table->half()),
                .page_size = static_cast<unsigned>(p.pages->page_size())};
  if (plan.schedule == HeadsPlan::Schedule::kPairs) {
    const auto kernel = p.head_dim == 64 ? prepare_pairs<4> : p.head_dim == 128 ? prepare_pairs<8> : prepare_pairs<16>;
    launch(device, {.grid = pair_blocks(p), .block = kPairBlock, .dependent = true}, kernel, h);
    return true;
  }
  const auto blocks = static_cast<unsigned>(piece_blocks(p));
  const int threads = threads_of_head(p.head_dim);
  const auto kernel = threads == 8    ? (plan.early ? prepare<8, true> : prepare<8, false>)
                      : threads == 16 ? (plan.early ? prepare<16, true> : prepare<16, false>)
                                      : (plan.early ? prepare<32, true> : prepare<32, false>);
  launch(device, {.grid = blocks, .block = kBlock, .dependent = true}, kernel, h);
  return true;
}

}  // namespace invar::cuda
