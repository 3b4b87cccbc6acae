#include "kernels/activation/activation.h"

#include "kernels/activation/cuda/activation.h"
#include "kernels/activation/schedules.h"
#include "kernels/lanes/row_split.h"

namespace invar {
namespace {

void silu_mul_scalar(const SiluMul& p, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r)
    for (int64_t i = 0; i < p.width; ++i) {
      const Bf16* gate = p.x + r * p.x_stride + (p.run ? i / p.run * p.run + i : i);
      p.y[r * p.y_stride + i] = numerics::silu_mul(gate[0], gate[p.run ? p.run : p.width]);
    }
}

void residual_scalar(Bf16* x, const Bf16* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) x[i] = numerics::residual(x[i], y[i]);
}

}  // namespace

void silu_mul_reference(const SiluMul& problem) { silu_mul_scalar(problem, 0, problem.rows); }

void residual_add_reference(Bf16* x, const Bf16* y, int64_t count) { residual_scalar(x, y, 0, count); }

void silu_mul(const Device& device, const SiluMul& problem) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::silu_mul(device, problem);
  const auto schedule = problem.run                    ? silu_mul_scalar
                        : device.isa() == Isa::kAvx512 ? activation_schedule::silu_mul_avx512
                        : device.isa() == Isa::kAvx2   ? activation_schedule::silu_mul_avx2
                                                       : silu_mul_scalar;
  split_rows(device.pool(), problem.rows, problem.width * 2, [&](int64_t begin, int64_t end) { schedule(problem, begin, end); });
}

void residual_add(const Device& device, Bf16* x, const Bf16* y, int64_t count) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::residual_add(device, x, y, count);
  const auto schedule = device.isa() == Isa::kAvx512 ? activation_schedule::residual_avx512
                        : device.isa() == Isa::kAvx2 ? activation_schedule::residual_avx2
                                                     : residual_scalar;
  split_rows(device.pool(), count, 1, [&](int64_t begin, int64_t end) { schedule(x, y, begin, end); });
}

}  // namespace invar
