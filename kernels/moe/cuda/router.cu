// Router: a warp has a row, its scores in registers; lane l of register i is expert 32 i + l, so the halving strides of the row
// sum above 16 stay inside a lane. The choice needs no sort: keys are unique, and the chosen experts' bits give the ascending
// order.
#include <algorithm>

#include "kernels/device/cuda/launch.cuh"
#include "kernels/moe/cuda/router.h"

namespace invar::cuda {

namespace {

constexpr int kWarps = 4;  // rows of a block
constexpr unsigned kAll = 0xffffffffu;
constexpr uint32_t kInfinityKey = 0xff800000u;  // order_key(+inf)
constexpr uint32_t kMinusInfinityKey = ~0xff800000u;

__device__ uint32_t canonical_key(float x) { return numerics::order_key(numerics::bits_float(numerics::canonical_bits(x))); }

// By a warp; kSlots * 32 >= experts. kept: room for the scores of the chosen.
template <int kSlots>
__device__ void route_row(const Router& p, int64_t row, bool reversed_ties, float* kept) {
  const int lane = threadIdx.x % 32, experts = static_cast<int>(p.experts);
  const float nan = numerics::bits_float(0x7fffffffu);
  const float* logits = p.logits + row * experts;
  float score[kSlots];
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const int id = i * 32 + lane;
    score[i] = id < experts ? logits[id] : 0.0f;
    if (id < experts) largest = max(largest, canonical_key(score[i]));
  }
  if (p.score == RouterScore::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) score[i] = score[i] != score[i] ? nan : numerics::sigmoid(score[i]);
  } else {
    largest = __reduce_max_sync(kAll, largest);
    if (largest > kMinusInfinityKey && largest < kInfinityKey) {
      const float top = numerics::bits_float(largest & 0x80000000u ? largest & 0x7fffffffu : ~largest);
      float sum[kSlots];
#pragma unroll
      for (int i = 0; i < kSlots; ++i)
        sum[i] = score[i] = numerics::exp2(numerics::mul(numerics::sub(score[i], top), numerics::kLog2e));
#pragma unroll
      for (int stride = kSlots / 2; stride > 0; stride /= 2)
#pragma unroll
        for (int i = 0; i < stride; ++i)
          if ((i + stride) * 32 + lane < experts) sum[i] = numerics::add(sum[i], sum[i + stride]);
#pragma unroll
      for (int stride = 16; stride > 0; stride /= 2) {
        const float other = __shfl_down_sync(kAll, sum[0], stride);
        if (lane < stride && lane + stride < experts) sum[0] = numerics::add(sum[0], other);
      }
      const float total = __shfl_sync(kAll, sum[0], 0);
#pragma unroll
      for (int i = 0; i < kSlots; ++i) score[i] = numerics::div(score[i], total);
    } else {
#pragma unroll
      for (int i = 0; i < kSlots; ++i) score[i] = nan;
    }
  }

  uint32_t chosen = 0;  // bit i: expert 32 i + lane
  for (int64_t n = 0; n < p.top_k; ++n) {
    uint32_t best = 0;
    bool any = false;
#pragma unroll
    for (int i = 0; i < kSlots; ++i)
      if (i * 32 + lane < experts && !(chosen >> i & 1)) {
        const uint32_t key = numerics::order_key(score[i]);
        best = any ? max(best, key) : key;
        any = true;
      }
    const uint32_t top = __reduce_max_sync(kAll, any ? best : 0u);
    // Of the equal ones the lowest id (the highest, where ties are reversed).
    uint32_t found = reversed_ties ? 0u : 0xffffffffu;
#pragma unroll
    for (int i = 0; i < kSlots; ++i)
      if (i * 32 + lane < experts && !(chosen >> i & 1) && numerics::order_key(score[i]) == top)
        found = reversed_ties ? max(found, i * 32u + lane) : min(found, i * 32u + lane);
    found = reversed_ties ? __reduce_max_sync(kAll, found) : __reduce_min_sync(kAll, found);
    if (found % 32 == static_cast<uint32_t>(lane)) chosen |= 1u << found / 32;
  }

  int32_t* ids = p.ids + row * p.top_k;
  float* weights = p.weights + row * p.top_k;
  int before = 0;  // chosen experts of lower registers
#pragma unroll
  for (int i = 0; i < kSlots; ++i) {
    const unsigned those = __ballot_sync(kAll, chosen >> i & 1);
    if (chosen >> i & 1) {
      const int place = before + __popc(those & ((1u << lane) - 1));
      ids[place] = i * 32 + lane;
      kept[place] = score[i];
    }
    before += __popc(those);
  }
  __syncwarp();
  float total = kept[0];
  if (p.renormalise)
    for (int64_t i = 1; i < p.top_k; ++i) total = numerics::add(total, kept[i]);
  for (int64_t i = lane; i < p.top_k; i += 32) {
    const float weight = p.renormalise ? numerics::div(kept[i], total) : kept[i];
    weights[i] = numerics::bits_float(numerics::canonical_bits(weight));
  }
}

template <int kSlots>
__global__ void __launch_bounds__(kWarps * 32) route_rows(const __grid_constant__ Router p, bool reversed_ties) {
  __shared__ float kept[kWarps][numerics::kSumLanes];
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int warp = threadIdx.x / 32;
  const int64_t row = blockIdx.x * int64_t{kWarps} + warp;
  if (row < p.rows) route_row<kSlots>(p, row, reversed_ties, kept[warp]);
}

// Few rows: one block routes them, a warp each, and orders them, a thread an expert.
constexpr int64_t kFewRows = 8, kFewExperts = 256, kFewChosen = 32;

template <int kSlots>
__global__ void __launch_bounds__(kFewExperts)
    route_few(const __grid_constant__ Router p, const __grid_constant__ ExpertOrder order, bool reversed_ties) {
  __shared__ float kept[kFewRows][kFewChosen];
  __shared__ int rows_of[kFewExperts / 32];  // of a warp's experts
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, expert = static_cast<int>(threadIdx.x);
  if (warp < p.rows) route_row<kSlots>(p, warp, reversed_ties, kept[warp]);
  __syncthreads();
  const int top_k = static_cast<int>(p.top_k), entries = static_cast<int>(p.rows) * top_k;
  int own = 0;
#pragma unroll 8
  for (int i = 0; i < entries; ++i) own += p.ids[i] == expert;
  int up_to = own;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int lower = __shfl_up_sync(kAll, up_to, distance);
    if (lane >= distance) up_to += lower;
  }
  if (lane == 31) rows_of[warp] = up_to;
  __syncthreads();
  int64_t place = up_to - own;
  for (int w = 0; w < warp; ++w) place += rows_of[w];
  if (expert < p.experts) order.offsets[expert] = place;
  if (expert == 0) order.offsets[p.experts] = entries;
  if (own == 0) return;
  for (int i = 0; i < entries; ++i)
    if (p.ids[i] == expert) {
      order.row_of[i] = place;
      order.token_of[place++] = i / top_k;
    }
}

// Thread: kVector neighbouring columns of a row.
template <int kVector>
struct alignas(kVector * 2) Columns {
  Bf16 v[kVector];
};

template <int kVector>
__global__ void combine_rows(const __grid_constant__ Combine p) {
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  using Vector = Columns<kVector>;
  const int64_t column = (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kVector, row = blockIdx.x;
  if (column >= p.width) return;
  const int64_t* row_of = p.row_of + row * p.top_k;
  const float* weights = p.weights + row * p.top_k;
  float acc[kVector] = {};
  constexpr int kAhead = 8;  // rows on their way at once
  for (int64_t t = 0; t < p.top_k; t += kAhead) {
    Vector x[kAhead];
    float w[kAhead];
    bool there[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t from = t + i < p.top_k ? row_of[t + i] : -1;
      there[i] = from >= 0;
      if (!there[i]) continue;
      x[i] = *reinterpret_cast<const Vector*>(p.expert_rows + from * p.width + column);
      w[i] = weights[t + i];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (there[i])
#pragma unroll
        for (int v = 0; v < kVector; ++v) acc[v] = numerics::fma(w[i], numerics::widen(x[i].v[v]), acc[v]);
  }
  if (p.shared) {
    const Vector x = *reinterpret_cast<const Vector*>(p.shared + row * p.width + column);
#pragma unroll
    for (int v = 0; v < kVector; ++v) acc[v] = numerics::fma(1.0f, numerics::widen(x.v[v]), acc[v]);
  }
  Vector y;
#pragma unroll
  for (int v = 0; v < kVector; ++v) y.v[v] = numerics::bf(acc[v]);
  *reinterpret_cast<Vector*>(p.y + row * p.width + column) = y;
}

template <int kVector>
void launch_combine(const Device& device, const Combine& p) {
  const int64_t vectors = (p.width + kVector - 1) / kVector;
  const auto threads = static_cast<unsigned>(std::min<int64_t>(256, (vectors + 31) / 32 * 32));
  const dim3 grid(static_cast<unsigned>(p.rows), static_cast<unsigned>((vectors + threads - 1) / threads));
  launch(device, {.grid = grid, .block = threads, .dependent = true}, combine_rows<kVector>, p);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

void route(const Device& device, const Router& p) {
  if (p.rows == 0) return;
  const bool reversed = device.control_arm() == ControlArm::kReversedTies;
  const Launch shape{.grid = static_cast<unsigned>((p.rows + kWarps - 1) / kWarps), .block = kWarps * 32, .dependent = true};
  if (p.experts <= 32)
    launch(device, shape, route_rows<1>, p, reversed);
  else if (p.experts <= 64)
    launch(device, shape, route_rows<2>, p, reversed);
  else if (p.experts <= 128)
    launch(device, shape, route_rows<4>, p, reversed);
  else if (p.experts <= 256)
    launch(device, shape, route_rows<8>, p, reversed);
  else
    launch(device, shape, route_rows<32>, p, reversed);
}

bool route_in_order(const Device& device, const Router& p, const ExpertOrder& order) {
  if (p.rows > kFewRows || p.experts > kFewExperts || p.top_k > std::min(kFewChosen, p.experts) || p.top_k < 1) return false;
  const bool reversed = device.control_arm() == ControlArm::kReversedTies;
  const Launch shape{.block = kFewExperts, .dependent = true};
  if (p.experts <= 32)
    launch(device, shape, route_few<1>, p, order, reversed);
  else if (p.experts <= 128)
    launch(device, shape, route_few<4>, p, order, reversed);
  else
    launch(device, shape, route_few<8>, p, order, reversed);
  return true;
}

void combine(const Device& device, const Combine& p) {
  if (p.rows == 0 || p.width == 0) return;
  if (p.width % 8 == 0 && aligned(p.expert_rows) && aligned(p.shared) && aligned(p.y))
    launch_combine<8>(device, p);
  else
    launch_combine<1>(device, p);
}

}  // namespace invar::cuda
