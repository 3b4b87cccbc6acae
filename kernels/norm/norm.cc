#include "kernels/norm/norm.h"

#include <algorithm>
#include <vector>

#include "kernels/lanes/row_split.h"
#include "kernels/norm/cuda/norm.h"
#include "kernels/norm/schedules.h"

namespace invar {
namespace {

// Halving strides over the lanes that hold at least one element; a missing right lane is skipped, never added.
float halve(std::vector<float> lane) {
  const auto filled = static_cast<int64_t>(lane.size());
  for (int64_t stride = numerics::kSumLanes / 2; stride > 0; stride /= 2)
    for (int64_t j = 0; j < stride && j + stride < filled; ++j) lane[j] = numerics::add(lane[j], lane[j + stride]);
  return filled ? lane[0] : 0.0f;
}

void norm_vector_reference(const RmsNorm& p, int64_t v) {
  const int64_t row = v / p.groups, group = v % p.groups;
  const Bf16* x = p.x + row * p.x_stride + group * p.width;
  Bf16* y = p.y + row * p.y_stride + group * p.width;
  const float mean = numerics::div(sum_of_squares_reference(x, p.width), static_cast<float>(p.width));
  const float r = numerics::rsqrt(numerics::add(mean, p.epsilon));
  for (int64_t k = 0; k < p.width; ++k) {
    const Bf16 scaled = numerics::bf(numerics::mul(numerics::widen(x[k]), r));
    y[k] = numerics::bf(numerics::mul(numerics::widen(p.weight[k]), numerics::widen(scaled)));
  }
}

void scalar(const RmsNorm& p, int64_t begin, int64_t end) {
  for (int64_t v = begin; v < end; ++v) norm_vector_reference(p, v);
}

}  // namespace

float sum_of_squares_reference(const Bf16* x, int64_t count) {
  std::vector<float> lane(std::min<int64_t>(count, numerics::kSumLanes), 0.0f);
  for (int64_t k = 0; k < count; ++k) {
    const float v = numerics::widen(x[k]);
    float& acc = lane[k % numerics::kSumLanes];
    acc = numerics::fma(v, v, acc);
  }
  return halve(std::move(lane));
}

float row_sum_reference(const float* x, int64_t count) {
  std::vector<float> lane(std::min<int64_t>(count, numerics::kSumLanes));
  for (int64_t k = 0; k < count; ++k) {
    float& acc = lane[k % numerics::kSumLanes];
    acc = k < numerics::kSumLanes ? x[k] : numerics::add(acc, x[k]);
  }
  return halve(std::move(lane));
}

void rms_norm_reference(const RmsNorm& problem) { scalar(problem, 0, problem.rows * problem.groups); }

void rms_norm(const Device& device, const RmsNorm& problem) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::rms_norm(device, problem);
  const auto schedule = device.isa() == Isa::kAvx512 ? norm_schedule::avx512
                        : device.isa() == Isa::kAvx2 ? norm_schedule::avx2
                                                     : scalar;
  split_rows(device.pool(), problem.rows * problem.groups, problem.width,
             [&](int64_t begin, int64_t end) { schedule(problem, begin, end); });
}

}  // namespace invar
