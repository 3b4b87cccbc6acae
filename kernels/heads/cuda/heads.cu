#include "kernels/attention/cuda/layout.h"
#include "kernels/device/cuda/launch.cuh"
#include "kernels/heads/cuda/heads.h"
#include "kernels/lanes/cuda/pieces.cuh"
#include "kernels/norm/cuda/norm_rows.cuh"
#include "kernels/rope/cuda/rotation.cuh"

namespace invar::cuda {
namespace {

constexpr int kBlock = 256;

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

// kThreads threads a head, 8 elements each; threads behind its end hold zeros. kEarly: angles and slots are asked for before the
// norm is summed, which a step of few rows waits for; later, and more threads fit, which many rows need to keep memory busy.
template <int kThreads, bool kEarly>
__global__ void __launch_bounds__(kBlock, kEarly ? 4 : 6) prepare(const __grid_constant__ Heads p) {
  const unsigned heads = p.query_heads + 2 * p.kv_heads, vector = (blockIdx.x * kBlock + threadIdx.x) / kThreads;
  const unsigned row = vector / heads, head = vector - row * heads;
  const int d = static_cast<int>(threadIdx.x) % kThreads * kPiece;
  const bool here = row < p.rows && d < p.head_dim;
  const bool query = head < p.query_heads, value = head >= p.query_heads + p.kv_heads;
  let_successor_start();
  const Bf16* weight_of_kind = query ? p.q_weight : p.k_weight;
  Bf16Piece<kPiece> weight, x;
  if (here && !value && weight_of_kind) weight = load_piece(weight_of_kind + d);
  wait_for_predecessors();
  Bf16* at = p.qkv + row * p.stride + int64_t{head} * p.head_dim + d;
  if (here) x = load_piece(at);
  const bool first = d < p.half, rotated = here && !value && d < 2 * p.half;
  FloatPiece<kPiece> cosine, sine;
  int64_t slot = -1;
  const auto load_rest = [&] {
    if (rotated) {
      const float* angle = p.table + int64_t{p.positions[row]} * 2 * p.half + (first ? d : d - p.half);
      cosine = load_piece(angle), sine = load_piece(angle + p.half);
    }
    if (here && !query) slot = p.slots[row];
  };
  if constexpr (kEarly) load_rest();
  if (p.q_weight) {
    float v[kPiece], lane[kPiece];
    widen_piece(x, v);
#pragma unroll
    for (int i = 0; i < kPiece; ++i) lane[i] = numerics::fma(v[i], v[i], 0.0f);
    const float r = norm_factor(halve_lanes<kThreads>(lane), p.head_dim, p.epsilon);
    if (!value) x = norm_piece(x, weight, r);
  }
  if constexpr (!kEarly) load_rest();
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

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

bool prepare_heads(const Device& device, const PrepareHeads& p) {
  const int64_t half = p.table->half(), heads = p.query_heads + 2 * p.kv_heads;
  const bool pieces = aligned(p.qkv) && aligned(p.q_weight) && aligned(p.k_weight) && p.stride % kPiece == 0 &&
                      p.head_dim % kPiece == 0 && half % kPiece == 0 && p.head_dim <= 256 && !p.q_weight == !p.k_weight;
  if (!pieces) return false;
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
                .half = static_cast<int>(half),
                .page_size = static_cast<unsigned>(p.pages->page_size())};
  const int threads = p.head_dim <= 64 ? 8 : p.head_dim <= 128 ? 16 : 32;
  const auto blocks = static_cast<unsigned>((p.rows * heads * threads + kBlock - 1) / kBlock);
  const bool early = blocks <= 4u * static_cast<unsigned>(device.cuda().multiprocessors);  // all of them fit at once
  const auto kernel = threads == 8    ? (early ? prepare<8, true> : prepare<8, false>)
                      : threads == 16 ? (early ? prepare<16, true> : prepare<16, false>)
                                      : (early ? prepare<32, true> : prepare<32, false>);
  launch(device, {.grid = blocks, .block = kBlock, .dependent = true}, kernel, h);
  return true;
}

}  // namespace invar::cuda
