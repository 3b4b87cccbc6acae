#include "kernels/rope/rope.h"

#include "kernels/lanes/row_split.h"
#include "kernels/rope/cuda/rope.h"
#include "kernels/rope/schedules.h"

namespace invar {
namespace {

void scalar(const Rope& p, const rope_schedule::Angles& angles, int64_t begin, int64_t end) {
  const int64_t half = angles.half;
  for (int64_t row = begin; row < end; ++row) {
    const float* cosine = angles.table + p.positions[row] * 2 * half;
    for (int64_t head = 0; head < p.heads; ++head) {
      Bf16* x = p.x + row * p.x_stride + head * p.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const float x1 = numerics::widen(x[i]), x2 = numerics::widen(x[half + i]), c = cosine[i], s = cosine[half + i];
        x[i] = numerics::bf(numerics::fma(x1, c, -numerics::mul(x2, s)));
        x[half + i] = numerics::bf(numerics::fma(x2, c, numerics::mul(x1, s)));
      }
    }
  }
}

}  // namespace

void rope_reference(const Rope& problem) { scalar(problem, {problem.table->cosine(0), problem.table->half()}, 0, problem.rows); }

void rope(const Device& device, const Rope& problem) {
  if constexpr (kCudaBuilt)
    if (device.backend() == Backend::kCuda) return cuda::rope(device, problem);
  const auto schedule = device.isa() == Isa::kAvx512 ? rope_schedule::avx512
                        : device.isa() == Isa::kAvx2 ? rope_schedule::avx2
                                                     : scalar;
  const rope_schedule::Angles angles{problem.table->cosine(0), problem.table->half()};
  split_rows(device.pool(), problem.rows, problem.heads * problem.head_dim,
             [&](int64_t begin, int64_t end) { schedule(problem, angles, begin, end); });
}

}  // namespace invar
