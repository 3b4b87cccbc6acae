#include "kernels/lanes/lanes_avx2.h"
#include "kernels/norm/norm_rows.h"
#include "kernels/norm/schedules.h"

namespace invar::norm_schedule {

float sum_of_squares_avx2(const Bf16* x, int64_t count) { return sum_of_squares<LanesAvx2>(x, count); }

void avx2(const RmsNorm& problem, int64_t begin, int64_t end) { norm_vectors<LanesAvx2>(problem, begin, end); }

}  // namespace invar::norm_schedule
