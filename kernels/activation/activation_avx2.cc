#include "kernels/activation/activation_rows.h"
#include "kernels/activation/schedules.h"
#include "kernels/lanes/lanes_avx2.h"

namespace invar::activation_schedule {

void silu_mul_avx2(const SiluMul& problem, int64_t begin, int64_t end) { silu_mul_rows<LanesAvx2>(problem, begin, end); }

void residual_avx2(Bf16* x, const Bf16* y, int64_t begin, int64_t end) { residual_range<LanesAvx2>(x, y, begin, end); }

}  // namespace invar::activation_schedule
