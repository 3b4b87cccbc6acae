#include "kernels/device/cuda/launch.cuh"
#include "kernels/norm/cuda/norm.h"
#include "kernels/norm/cuda/norm_rows.cuh"

namespace invar::cuda {
namespace {

constexpr int kGroupBlock = 256;    // threads of a block, NormPlan::kGroups
constexpr int kGenericBlock = 256;  // and NormPlan::kGeneric: four virtual lanes each

template <int kCount>
struct RowSource {
  using Held = Bf16Piece<kCount>;
  const Bf16* x;
  int64_t stride;
  __device__ Held load(int64_t row, int k) const { return load_piece<kCount>(x + row * stride + k); }
  __device__ Bf16Piece<kCount> make(int64_t, int, const Held& held) const { return held; }
};

template <int kCount>
struct ResidualSource {
  struct Held {
    Bf16Piece<kCount> x, y;
  };
  Bf16* x;
  const Bf16* y;
  int64_t width;
  __device__ Held load(int64_t row, int k) const {
    return {load_piece<kCount>(x + row * width + k), load_piece<kCount>(y + row * width + k)};
  }
  __device__ Bf16Piece<kCount> make(int64_t row, int k, const Held& held) const {
    const Bf16Piece<kCount> sum = residual_piece(held.x, held.y);
    store_piece(x + row * width + k, sum);
    return sum;
  }
};

// kThreads threads a vector; threads behind its end hold zeros. A block's vectors lie anywhere, so a warp may hold several.
template <int kThreads>
__global__ void __launch_bounds__(kGroupBlock) norm_groups(RmsNorm p) {
  const unsigned vector = (blockIdx.x * kGroupBlock + threadIdx.x) / kThreads, groups = static_cast<unsigned>(p.groups);
  const unsigned row = vector / groups, group = vector - row * groups;
  const int k = static_cast<int>(threadIdx.x) % kThreads * kPiece, width = static_cast<int>(p.width);
  const bool here = row < p.rows && k < width;
  let_successor_start();
  Bf16Piece<kPiece> weight, x;
  if (here) weight = load_piece(p.weight + k);
  wait_for_predecessors();
  if (here) x = load_piece(p.x + row * p.x_stride + group * p.width + k);
  float v[kPiece], lane[kPiece];
  widen_piece(x, v);
#pragma unroll
  for (int i = 0; i < kPiece; ++i) lane[i] = numerics::fma(v[i], v[i], 0.0f);
  const float r = norm_factor(halve_lanes<kThreads>(lane), width, p.epsilon);
  if (here) store_piece(p.y + row * p.y_stride + group * p.width + k, norm_piece(x, weight, r));
}

// Element by element, with the residual first where there is one (ResidualRmsNorm: `added` is not null, and x is written).
__global__ void __launch_bounds__(kGenericBlock) norm_generic(RmsNorm p, Bf16* sum, const Bf16* added) {
  __shared__ float lanes[numerics::kSumLanes];
  const int64_t row = blockIdx.x / p.groups, group = blockIdx.x - row * p.groups;
  const int64_t from = row * p.x_stride + group * p.width;
  const int t = static_cast<int>(threadIdx.x);
  let_successor_start();
  wait_for_predecessors();
  for (int j = t; j < numerics::kSumLanes; j += kGenericBlock) {
    float acc = 0;
    for (int64_t k = j; k < p.width; k += numerics::kSumLanes) {
      if (added) sum[from + k] = numerics::residual(p.x[from + k], added[from + k]);
      const float v = numerics::widen(p.x[from + k]);
      acc = numerics::fma(v, v, acc);
    }
    lanes[j] = acc;  // +0 for a lane without an element, which changes nothing
  }
  for (int stride = numerics::kSumLanes / 2; stride > 0; stride /= 2) {
    __syncthreads();
    for (int j = t; j < stride; j += kGenericBlock) lanes[j] = numerics::add(lanes[j], lanes[j + stride]);
  }
  __syncthreads();
  const float r = norm_factor(lanes[0], static_cast<int>(p.width), p.epsilon);
  Bf16* y = p.y + row * p.y_stride + group * p.width;
  for (int64_t k = t; k < p.width; k += kGenericBlock) {
    const Bf16 scaled = numerics::bf(numerics::mul(numerics::widen(p.x[from + k]), r));
    y[k] = numerics::bf(numerics::mul(numerics::widen(p.weight[k]), numerics::widen(scaled)));
  }
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

void rms_norm(const Device& device, const RmsNorm& p) {
  const bool whole = aligned(p.x) && aligned(p.y) && aligned(p.weight) && p.x_stride % kPiece == 0 && p.y_stride % kPiece == 0;
  rms_norm(device, p, plan_norm(device.cuda().multiprocessors, p.rows, p.groups, p.width, whole));
}

void rms_norm(const Device& device, const RmsNorm& p, const NormPlan& plan) {
  const int64_t vectors = p.rows * p.groups;
  if (vectors == 0 || p.width == 0) return;
  if (plan.schedule == NormPlan::Schedule::kRows) {
    const NormTarget target{p.weight, p.y, p.y_stride, static_cast<int>(p.width), p.epsilon};
    if (plan.lanes == 4) return launch_norm_rows<4>(device, p.rows, RowSource<4>{p.x, p.x_stride}, target);
    return launch_norm_rows<8>(device, p.rows, RowSource<8>{p.x, p.x_stride}, target);
  }
  if (plan.schedule == NormPlan::Schedule::kGroups) {
    const auto blocks = static_cast<unsigned>((vectors * plan.threads + kGroupBlock - 1) / kGroupBlock);
    const Launch shape{.grid = blocks, .block = kGroupBlock, .dependent = true};
    if (plan.threads == 8) return launch(device, shape, norm_groups<8>, p);
    if (plan.threads == 16) return launch(device, shape, norm_groups<16>, p);
    return launch(device, shape, norm_groups<32>, p);
  }
  launch(device, {.grid = static_cast<unsigned>(vectors), .block = kGenericBlock, .dependent = true}, norm_generic, p, nullptr,
         nullptr);
}

void residual_rms_norm(const Device& device, const ResidualRmsNorm& p) {
  const bool whole = aligned(p.x) && aligned(p.y) && aligned(p.normed) && aligned(p.weight);
  NormPlan plan = plan_norm(device.cuda().multiprocessors, p.rows, 1, p.width, whole);
  if (plan.schedule == NormPlan::Schedule::kGroups) plan = {.schedule = NormPlan::Schedule::kRows, .lanes = 8};
  residual_rms_norm(device, p, plan);
}

void residual_rms_norm(const Device& device, const ResidualRmsNorm& p, const NormPlan& plan) {
  if (p.rows == 0 || p.width == 0) return;
  if (plan.schedule == NormPlan::Schedule::kRows) {
    const NormTarget target{p.weight, p.normed, p.width, static_cast<int>(p.width), p.epsilon};
    if (plan.lanes == 4) return launch_norm_rows<4>(device, p.rows, ResidualSource<4>{p.x, p.y, p.width}, target);
    return launch_norm_rows<8>(device, p.rows, ResidualSource<8>{p.x, p.y, p.width}, target);
  }
  const RmsNorm norm{.rows = p.rows,
                     .width = p.width,
                     .x = p.x,
                     .x_stride = p.width,
                     .weight = p.weight,
                     .epsilon = p.epsilon,
                     .y = p.normed,
                     .y_stride = p.width};
  launch(device, {.grid = static_cast<unsigned>(p.rows), .block = kGenericBlock, .dependent = true}, norm_generic, norm, p.x,
         p.y);
}

}  // namespace invar::cuda
