#include "kernels/lanes/lanes_avx2.h"
#include "kernels/moe/moe_rows.h"
#include "kernels/moe/schedules.h"

namespace invar::moe_schedule {

void softmax_avx2(const float* z, float max, int64_t count, float* p) { softmax_row<LanesAvx2>(z, max, count, p); }

void sigmoid_avx2(const float* z, int64_t count, float* p) { sigmoid_row<LanesAvx2>(z, count, p); }

void combine_avx2(const Combine& problem, int64_t begin, int64_t end) { combine_rows<LanesAvx2>(problem, begin, end); }

}  // namespace invar::moe_schedule
